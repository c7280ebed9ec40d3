"""One recommendation from end to end: newest events, route, Triton or popularity, exploration, impression."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from core.errors import RequestError
from core.feedback import MAX_CANDIDATES, Candidate, Exploration, Impression, Place
from core.feedback_keys import FeedbackKeys
from core.feedback_tokens import issue_token
from core.feedback_users import user_ref
from core.sections import GatewaySettings
from core.tensors import ENSEMBLE
from serving.gateway.catalogue import ReleaseView, Views, events_until_ms
from serving.gateway.explore import NOTHING, draw_slate, policy_for, propensities
from serving.gateway.guard import Places
from serving.gateway.impressions import ImpressionLog
from serving.gateway.metrics import Metrics, Shown
from serving.gateway.problems import Problem
from serving.gateway.recent import Overlay, RecentReader
from serving.gateway.replicas import Replicas
from serving.gateway.trace import note
from serving.gateway.upstream import TritonFault
from serving.gateway.wire import MOST_K, ItemOut, ReasonOut, RecommendationAnswer, RecommendationRequest
from serving.messages import RecommendedItem, Request, make_request
from serving.pointer import PointerReader, bucket_of, model_of

SESSION_KEY = "session"
POPULARITY, EXPLORE, RECALL = "popularity", "explore", "recall"


@dataclass(frozen=True)
class Route:
    """Who answers.

    Attributes:
        view: The release.
        model: Its ensemble on Triton.
        arm: stable or canary.
        bucket: Of the user, where there is an experiment.
        experiment: The salt's name.
        shadow: Ensemble that gets a copy.
    """

    view: ReleaseView
    model: str
    arm: str
    bucket: int | None = None
    shadow: str | None = None


@dataclass(frozen=True)
class Parts:
    """What a recommender works with."""

    replicas: Replicas
    views: Views
    pointer: PointerReader
    recent: RecentReader
    impressions: ImpressionLog
    metrics: Metrics
    keys: FeedbackKeys
    token_seconds: float
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""


class Recommender:
    """Answers requests; for one event loop."""

    def __init__(self, parts: Parts, settings: GatewaySettings) -> None:
        self.parts, self._settings = parts, settings
        self.places = Places(settings.max_in_flight * len(parts.replicas.members), settings.max_waiting)
        self._shadows: set[asyncio.Task[None]] = set()

    async def answer(self, asked: RecommendationRequest) -> RecommendationAnswer:
        """The slate for one user, and its impression on its way.

        Raises:
            Problem: k above the release's limit; no release at all.
        """
        started = time.perf_counter()
        parts, stages = self.parts, {}
        request_id = f"{int(parts.clock() * 1000):011x}{secrets.token_hex(8)}"
        route = self.route(asked.user_id)
        self._check_k(asked, route)
        reference = user_ref(asked.user_id, parts.keys.pseudonym)
        overlay = await parts.recent.read(reference, events_until_ms(route.view.info))
        if not overlay.known:
            parts.metrics.history_misses.inc()
        stages["history"] = _ms(started)
        request = self._request(asked, route, overlay, reference)
        fault, candidates = None, []
        try:
            candidates = await self._from_triton(route.model, request, started, stages)
        except TritonFault as error:
            fault = error.kind
        begun = time.perf_counter()
        if fault is None:
            scores = [item.score for item in candidates]
            policy = self._policy(request_id, scores, asked)
            drawn = draw_slate(scores, asked.k, policy)
            slate = [candidates[place] for place in drawn.places]
            sources = [EXPLORE if uniform else RECALL for uniform in drawn.uniform]
            places = drawn.places
        else:
            without = {*asked.session_items, *asked.exclude, *overlay.session, *overlay.unwanted}
            slate = route.view.popular(asked.k, without | route.view.seen(request.users[0]))
            policy, sources, places = NOTHING, [POPULARITY] * len(slate), None
            candidates = []
        stages["order"] = _ms(begun)
        arm = route.arm if fault is None else "fallback"
        items = [item.item_id for item in slate]
        now = parts.clock()
        answer = RecommendationAnswer(
            request_id=request_id,
            user_id=asked.user_id,
            release=route.view.info.release_id,
            arm=arm,
            degraded=fault is not None,
            degraded_reason=fault,
            token=issue_token(parts.keys.tokens, request_id, reference, items, int(now + parts.token_seconds)),
            items=self.shown(slate, sources, route.view),
            latency_ms={name: round(value, 3) for name, value in {**stages, "total": _ms(started)}.items()},
        )
        note(
            answer=answer.request_id, release=answer.release, arm=answer.arm, degraded=fault,
            triton_ms=answer.latency_ms.get("triton"),
        )  # fmt: skip
        self._log(answer, route, asked, policy, candidates, places, sources, reference, now, fault)
        self._copy(route, request)
        return answer

    def route(self, user_id: str) -> Route:
        """Who answers this user: as the pointer says, the alias where there is none yet.

        Raises:
            Problem: 503, nothing is installed.
        """
        pointer = self.parts.pointer.current()
        if pointer is not None:
            side = pointer.side_of(user_id)
            release = pointer.release_of(user_id)
            view = self.parts.views.get(release)
            if view is not None:
                shadow = None if pointer.shadow in (None, release) else model_of(str(pointer.shadow))
                bucket = bucket_of(user_id, pointer.salt) if pointer.canary is not None else None
                return Route(view, model_of(release), side, bucket, shadow)
        view = self.parts.views.live()
        if view is None:
            raise Problem(503, "no release is installed", retry_after_s=5)
        return Route(view, ENSEMBLE.name, "stable")

    async def compare(self, asked: RecommendationRequest, release: str, model: str) -> list[ItemOut]:
        """What one release would answer, without exploration and without an impression.

        Raises:
            TritonFault: No answer.
        """
        view = self.parts.views.get(release)
        if view is None:
            raise TritonFault("missing", "not installed")
        route = Route(view, model, "stable")
        self._check_k(asked, route)
        reference = user_ref(asked.user_id, self.parts.keys.pseudonym)
        overlay = await self.parts.recent.read(reference, events_until_ms(view.info))
        request = replace(self._request(asked, route, overlay, reference), k=(asked.k,))
        found = await self._from_triton(model, request, time.perf_counter(), {})
        return self.shown(found, [RECALL] * len(found), view)

    def shown(self, slate: list[RecommendedItem], sources: list[str], view: ReleaseView) -> list[ItemOut]:
        """Items as users see them."""
        title = view.titles.get
        return [
            ItemOut(
                item_id=item.item_id,
                score=item.score,
                position=at,
                title=title(item.item_id),
                source=None if source == RECALL else source,
                reasons=[ReasonOut(item_id=r.item_id, share=r.share, title=title(r.item_id)) for r in item.reasons],
            )
            for at, (item, source) in enumerate(zip(slate, sources, strict=True), 1)
        ]

    async def close(self) -> None:
        """Ends copies under way."""
        for task in list(self._shadows):
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)

    def _check_k(self, asked: RecommendationRequest, route: Route) -> None:
        most = min(route.view.info.max_k, MOST_K)
        if asked.k > most:
            raise Problem(
                422, "k is above the release's limit", where="k", expected=f"at most {most}", found=str(asked.k)
            )

    def _request(self, asked: RecommendationRequest, route: Route, overlay: Overlay, reference: str) -> Request:
        """The question to Triton: exploration asks for more candidates than places."""
        view, k = route.view, asked.k
        if self._explores(asked):
            k = max(k, min(self._settings.explore_pool, view.info.max_k, MAX_CANDIDATES))
        # Users who are newer than the first data set are known to later releases by their pseudonym.
        name = asked.user_id if view.knows(asked.user_id) or not view.knows(reference) else reference
        attributes = {key: value for key, value in asked.context.items() if key != SESSION_KEY}
        try:
            return make_request(
                [name], k, [[*overlay.session, *asked.session_items]], [[*asked.exclude, *overlay.unwanted]],
                asked.diversity, [attributes] if attributes else None,
            )  # fmt: skip
        except RequestError as error:
            raise Problem(422, error.what, where=error.where, expected=error.expected, found=error.found) from None

    def _explores(self, asked: RecommendationRequest) -> bool:
        """Variety sets an order of its own, which drawing by score would undo."""
        chosen = self._settings
        return asked.diversity is None and (chosen.explore_temperature > 0 or chosen.explore_epsilon > 0)

    def _policy(self, request_id: str, scores: list[float], asked: RecommendationRequest) -> Exploration:
        in_order = all(one >= other for one, other in itertools.pairwise(scores))
        if not self._explores(asked) or not in_order:
            return NOTHING
        chosen = self._settings
        return policy_for(request_id, scores, chosen.explore_temperature, chosen.explore_epsilon, chosen.explore_draws)

    async def _from_triton(
        self, model: str, request: Request, started: float, stages: dict[str, float]
    ) -> list[RecommendedItem]:
        """Asks a Triton, within the deadline, a place allowing."""
        metrics, deadline = self.parts.metrics, self._settings.deadline_ms / 1000
        begun = time.perf_counter()
        left = deadline - (begun - started)
        if not await self.places.enter(min(left, self._settings.wait_ms / 1000)):
            metrics.shed.labels("popularity").inc()
            metrics.faults.labels("full").inc()
            raise TritonFault("busy", "no place")
        try:
            stages["wait"] = _ms(begun)
            asked = time.perf_counter()
            try:
                answer = await self.parts.replicas.ask(model, request, deadline - (asked - started))
            except RequestError as error:
                raise Problem(422, error.what) from None
            finally:
                stages["triton"] = _ms(asked)
            return list(answer.items)
        finally:
            self.places.leave()

    def _log(
        self, answer: RecommendationAnswer, route: Route, asked: RecommendationRequest, policy: Exploration,
        candidates: list[RecommendedItem], places: object, sources: list[str], reference: str, now: float,
        fault: str | None,
    ) -> None:  # fmt: skip
        """Counts the answer and puts its impression on the way; propensities are computed there, not here."""
        metrics = self.parts.metrics
        metrics.answers.labels(answer.release, answer.arm, str(answer.degraded).lower()).inc()
        for name, value in answer.latency_ms.items():
            metrics.stages.labels(name).observe(value / 1000)
        shown = Shown(answer.release, answer.arm, frozenset(item.item_id for item in answer.items))
        metrics.items.labels(shown.release, shown.arm).set(metrics.online.answered(answer.request_id, shown))
        scores = [item.score for item in candidates]
        explored = policy.method != NOTHING.method

        def build() -> Impression:
            chances = propensities(scores, places, policy) if explored else [1.0] * len(answer.items)  # type: ignore[arg-type]
            return Impression(
                request_id=answer.request_id,
                user_ref=reference,
                event_time_ms=int(now * 1000),
                release=answer.release,
                ensemble=route.model,
                arm=answer.arm,
                bucket=route.bucket,
                session=asked.context.get(SESSION_KEY),
                slate=tuple(
                    Place(position=at, item=item.item_id, score=item.score, propensity=float(chance), source=source)
                    for at, (item, chance, source) in enumerate(zip(answer.items, chances, sources, strict=True), 1)
                ),
                candidates=tuple(Candidate(item=item.item_id, score=item.score) for item in candidates)
                if explored
                else (),
                exploration=policy,
                latency_ms=answer.latency_ms["total"],
                degraded="none" if fault is None else "popularity",
                model_error=fault,
            )

        self.parts.impressions.put(build)

    def _copy(self, route: Route, request: Request) -> None:
        """Sends a copy to the shadow release: few at once, first to go under load, nobody waits."""
        if route.shadow is None:
            return
        fates = self.parts.metrics.shadows
        if len(self._shadows) >= self._settings.shadow_in_flight or self.places.waiting:
            fates.labels("dropped").inc()
            return
        model = route.shadow

        async def ask() -> None:
            try:
                await self.parts.replicas.ask(model, request, self._settings.deadline_ms / 1000)
                fates.labels("answered").inc()
            except (TritonFault, RequestError):
                fates.labels("failed").inc()

        task = asyncio.create_task(ask())
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)


def _ms(since: float) -> float:
    return (time.perf_counter() - since) * 1000
