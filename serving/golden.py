"""Golden requests: questions whose answers were recorded when the release was made, to be answered alike by the server.

``golden.json`` of a release. They also warm the release up: every step runs, at batch 1 and together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.artifacts import write_json
from core.errors import PublishError
from serving.local import LocalPipeline
from serving.messages import Recommendation

GOLDEN_FILE = "golden.json"
NEWCOMER = "conch-golden-newcomer"
SCORE_TOLERANCE = 1e-3
"""Relative and absolute: the server's ONNX Runtime may order its sums in another way."""

Ask = Callable[[Sequence[str], Sequence[int], Sequence[Sequence[str]]], list[Recommendation]]
"""Users, k and session items to answers."""


class GoldenRequest(BaseModel):
    """One question and its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    user: str
    k: int = Field(ge=1)
    session: tuple[str, ...] = ()
    items: tuple[str, ...]
    scores: tuple[float, ...]


class Golden(BaseModel):
    """``golden.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: tuple[GoldenRequest, ...] = Field(min_length=1)


def record_golden(release: Path, users: Sequence[str], items: Sequence[str], k: int = 10) -> None:
    """Asks the release in process and writes ``golden.json`` into its folder.

    Args:
        release: Folder of a release.
        users: Known and unknown ones.
        items: For one more question, a session of a new user.
        k: Length of the answers.
    """
    asked = [(user, ()) for user in users] + [(NEWCOMER, tuple(items))]
    with LocalPipeline(release, threads=1) as pipeline:
        k = min(k, pipeline.max_k)
        answers = pipeline.recommend([user for user, _ in asked], k, [session for _, session in asked])
    requests = tuple(
        GoldenRequest(
            user=user, k=k, session=session, items=tuple(item.item_id for item in answer.items),
            scores=tuple(float(item.score) for item in answer.items),
        )
        for (user, session), answer in zip(asked, answers, strict=True)
    )  # fmt: skip
    write_json(release / GOLDEN_FILE, Golden(requests=requests).model_dump(mode="json"))


def read_golden(release: Path) -> Golden | None:
    """The golden requests of a release; None where it was made without."""
    try:
        return Golden.model_validate_json((release / GOLDEN_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise PublishError("golden.json cannot be read", where=str(release), found=str(error)) from None


def check_golden(golden: Golden, ask: Ask, release_id: str) -> None:
    """Asks each question alone, then all together.

    Raises:
        PublishError: An answer of another release, with other items or other scores.
    """
    requests = golden.requests
    rounds = [[request] for request in requests] + [list(requests)]
    for asked in rounds:
        answers = ask([r.user for r in asked], [r.k for r in asked], [r.session for r in asked])
        for request, answer in zip(asked, answers, strict=True):
            _compare(request, answer, release_id)


def _compare(request: GoldenRequest, answer: Recommendation, release_id: str) -> None:
    scores = tuple(float(item.score) for item in answer.items)
    items = tuple(item.item_id for item in answer.items)
    close = len(scores) == len(request.scores) and all(
        abs(one - other) <= SCORE_TOLERANCE * max(1.0, abs(other))
        for one, other in zip(scores, request.scores, strict=True)
    )
    if answer.release != release_id or not close or not _same_items(request, items):
        raise PublishError(
            "the server answers a golden request in another way", where=f"{release_id}, user {request.user!r}",
            expected=f"{release_id}: {list(zip(request.items, request.scores, strict=True))[:3]}",
            found=f"{answer.release}: {list(zip(items, scores, strict=True))[:3]}",
        )  # fmt: skip


def _same_items(request: GoldenRequest, items: tuple[str, ...]) -> bool:
    """Equal lists, but for items whose scores are so close that either order is right; the last place may tie too."""
    if len(items) != len(request.items):
        return False
    for place, (item, wanted) in enumerate(zip(items, request.items, strict=True)):
        if item == wanted:
            continue
        score = request.scores[place]
        tied = [abs(other - score) <= SCORE_TOLERANCE * max(1.0, abs(score)) for other in request.scores]
        if sum(tied) < 2 and place < len(items) - 1:
            return False
    return True
