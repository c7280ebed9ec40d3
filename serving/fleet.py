"""The replicas of a fleet: makes files and loaded models agree with the releases that are wanted, and flips aliases.

Each function reads what is there and does what is missing, so that running it again after a crash finishes the job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from core.errors import ConchError, PublishError
from core.tensors import ENSEMBLE
from serving.control import Control, Replica
from serving.golden import Golden, check_golden
from serving.lint import CONFIG_FILE, read_config
from serving.placing import (
    Placement,
    alias_config,
    aliases,
    leaves_in,
    pins_of,
    place_ensembles,
    place_version,
    plan,
    release_ensembles,
    releases_in,
    set_versions,
    sweep,
    write_alias,
)

READY = "READY"
PROBE_USERS = ("conch-probe", "conch-probe-2")

Step = Callable[[str], None]


class Fleet:
    """Replicas that change together.

    Args:
        replicas: At least one; those that share a repository name the same path.
        step: Called before each change that a crash could cut short.
    """

    def __init__(self, replicas: Sequence[Replica], step: Step) -> None:
        self.replicas = tuple(replicas)
        self.repositories = tuple(dict.fromkeys(replica.repository for replica in replicas))
        self._step = step

    def place(self, source: Path, release_id: str) -> dict[Path, Placement]:
        """Puts the versions of a release into every repository; nothing serves them yet."""
        placements = {}
        for repository in self.repositories:
            repository.mkdir(parents=True, exist_ok=True)
            with _staging(repository) as staging:
                placement = plan(source, repository, release_id)
                for leaf in placement.leaves:
                    self._step(f"place {leaf}")
                    place_version(source, repository, placement, leaf, staging)
            placements[repository] = placement
        return placements

    def load(self, source: Path, placements: dict[Path, Placement], golden: Golden | None) -> None:
        """Loads a release beside the others on every replica and asks it; no alias and no pointer knows it yet.

        Raises:
            PublishError: A replica cannot load it, or answers in another way than it should.
        """
        for repository, placement in placements.items():
            self._step("widen policies")
            for leaf in placement.leaves.values():
                versions = read_config(repository / leaf).version_policy.specific.versions
                set_versions(repository, leaf, {*versions, placement.version})
        for replica in self._online():
            placement = placements[replica.repository]
            with Control(replica) as control:
                for leaf in placement.leaves.values():
                    self._step(f"load {leaf}")
                    control.load(leaf)
                    _expect_ready(control, replica, leaf)
        for repository, placement in placements.items():
            self._step("place ensembles")
            with _staging(repository) as staging:
                place_ensembles(source, repository, placement, staging)
        for replica in self._online():
            placement = placements[replica.repository]
            with Control(replica) as control:
                for name in placement.ensembles:
                    self._step(f"load {name}")
                    control.load(name)
                self._step("golden requests")
                _ask(control, replica, placement, golden)

    def reconcile(self, keep: Collection[str], stable: str | None) -> list[str]:
        """Makes every replica hold the releases of ``keep`` and no other, with the aliases of ``stable``.

        An ensemble is unloaded before the versions that it pins, as read back from the server.

        Returns:
            Complaints about replicas that could not be reached or made to agree; their repositories are right, and
            their next start is.
        """
        complaints: list[str] = []
        if stable is not None:
            complaints += self._guarded(lambda replica, control: self._follow(replica, control, stable))
        complaints += self._guarded(lambda replica, control: self._unload_ensembles(replica, control, keep))
        for repository in self.repositories:
            with _staging(repository) as staging:
                for name in [name for release in releases_in(repository) if release not in keep
                             for name in release_ensembles(repository, release)]:  # fmt: skip
                    self._step(f"remove {name}")
                    (repository / name).rename(staging / name)
            for leaf, versions in pins_of(repository, _ensembles_on_disk(repository)).items():
                set_versions(repository, leaf, versions)
        complaints += self._guarded(self._agree)
        if not complaints:
            for repository in self.repositories:
                self._step("sweep")
                with _staging(repository) as staging:
                    sweep(repository, staging)
        return complaints

    def flip_aliases(self, release_id: str) -> None:
        """Makes the aliases those of a release; on any failure those from before are back when this raises.

        Raises:
            PublishError: A replica refused; the old aliases were restored.
        """
        before = {repository: _aliases_of(repository) for repository in self.repositories}
        try:
            for replica in self.replicas:
                self._flip(replica, {alias: alias_config(replica.repository, alias, release_id) for alias in aliases()})
        except (ConchError, OSError):
            for replica in self.replicas:
                self._flip(replica, before[replica.repository])
            raise

    def require_loaded(self, release_id: str) -> None:
        """Refuses where a release is not in a repository, or where a server does not serve it at once.

        Raises:
            PublishError: It is not loaded everywhere.
        """
        for replica in self.replicas:
            ensembles = release_ensembles(replica.repository, release_id)
            if not ensembles:
                raise PublishError("release is not in the repository", where=replica.name, found=release_id)
            if replica.address is not None:
                with Control(replica) as control:
                    if not control.is_ready(ensembles[-1]):
                        raise PublishError(f"{ensembles[-1]} is not loaded", where=replica.name)

    def _flip(self, replica: Replica, wanted: dict[str, pb.ModelConfig | None]) -> None:
        with _staging(replica.repository) as staging:
            for alias, config in wanted.items():
                path = replica.repository / alias
                if config is not None:
                    write_alias(replica.repository, config, staging)
                elif path.is_dir():
                    path.rename(staging / f"gone-{alias}")
        if replica.address is None:
            return
        with Control(replica) as control:
            for alias, config in reversed(wanted.items()):  # `recommend` first: it is what users wait for
                if config is not None:
                    control.load(alias)
                    if not control.is_ready(alias):
                        raise PublishError(f"alias {alias} is not ready", where=replica.name)
                elif READY in control.states().get(alias, {}).values():
                    control.unload(alias)

    def _follow(self, replica: Replica, control: Control | None, stable: str) -> None:
        wanted = {alias: alias_config(replica.repository, alias, stable) for alias in aliases()}
        if wanted[ENSEMBLE.name] is None:
            return  # not placed in this repository: nothing to follow
        there = _aliases_of(replica.repository)
        loaded = control.pins() if control else {}
        agrees = control is None or all(
            loaded.get(alias) == (None if config is None else _pins(config)) for alias, config in wanted.items()
        )
        if there != wanted or not agrees:
            self._step("aliases follow")
            self._flip(replica, wanted)

    def _unload_ensembles(self, replica: Replica, control: Control | None, keep: Collection[str]) -> None:
        if control is None:
            return
        for name in control.pins():
            if name not in aliases() and name.partition(".")[2] not in keep:
                self._step(f"unload {name}")
                control.unload(name)

    def _agree(self, replica: Replica, control: Control | None) -> None:
        """Loads what is missing and drops versions that no loaded ensemble pins."""
        if control is None:
            return
        pinned: dict[str, set[int]] = {}
        for steps in control.pins().values():
            for leaf, version in steps:
                pinned.setdefault(leaf, set()).add(version)
        states = control.states()
        for leaf in leaves_in(replica.repository):
            wanted = set(read_config(replica.repository / leaf).version_policy.specific.versions)
            ready = {version for version, state in states.get(leaf, {}).items() if state == READY}
            if not pinned.get(leaf, set()) <= wanted:
                raise PublishError(
                    f"{leaf} would lose a version that an ensemble pins", where=replica.name,
                    expected=f"{sorted(pinned[leaf])} among {sorted(wanted)}",
                )  # fmt: skip
            if leaf not in pinned and leaf not in pins_of(replica.repository, _ensembles_on_disk(replica.repository)):
                if ready:
                    self._step(f"unload {leaf}")
                    control.unload(leaf)
            elif ready != wanted:
                self._step(f"load {leaf}")
                control.load(leaf)
        for name in _ensembles_on_disk(replica.repository):
            if READY not in states.get(name, {}).values():
                self._step(f"load {name}")
                control.load(name)

    def _guarded(self, work: Callable[[Replica, Control | None], None]) -> list[str]:
        """Does the same on each replica; gives back what went wrong instead of stopping at the first."""
        complaints = []
        for replica in self.replicas:
            try:
                if replica.address is None:
                    work(replica, None)
                else:
                    with Control(replica) as control:
                        work(replica, control)
            except PublishError as error:
                complaints.append(f"{replica.name}: {error.what}")
        return complaints

    def _online(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.address is not None]


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A folder outside the repository, on the same file system; what a crash left there goes."""
    path = repository.parent / f".{repository.name}.publish"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _expect_ready(control: Control, replica: Replica, leaf: str) -> None:
    wanted = set(read_config(replica.repository / leaf).version_policy.specific.versions)
    states = control.states().get(leaf, {})
    ready = {version for version, state in states.items() if state == READY}
    if ready != wanted:
        raise PublishError(
            f"not all versions of {leaf} are ready", where=replica.name, expected=str(sorted(wanted)), found=str(states)
        )


def _ask(control: Control, replica: Replica, placement: Placement, golden: Golden | None) -> None:
    name = placement.ensembles[-1]
    if not control.is_ready(name):
        raise PublishError(f"{name} is not ready", where=replica.name)
    if golden is not None:
        ask = lambda users, k, sessions: control.recommend(name, users, k, sessions)  # noqa: E731
        check_golden(golden, ask, placement.release_id)
        return
    for answer in control.recommend(name, PROBE_USERS, [1, 1], [[], []]):
        if answer.release != placement.release_id:
            raise PublishError(
                f"{name} answers for another release", where=replica.name, expected=placement.release_id,
                found=answer.release,
            )  # fmt: skip


def _aliases_of(repository: Path) -> dict[str, pb.ModelConfig | None]:
    present = {alias: (repository / alias / CONFIG_FILE).is_file() for alias in aliases()}
    return {alias: read_config(repository / alias) if there else None for alias, there in present.items()}


def _pins(config: pb.ModelConfig) -> set[tuple[str, int]]:
    return {(step.model_name, int(step.model_version)) for step in config.ensemble_scheduling.step}


def _ensembles_on_disk(repository: Path) -> list[str]:
    names = sorted(path.name for path in repository.iterdir() if (path / CONFIG_FILE).is_file())
    return [name for name in names if read_config(repository / name).platform == "ensemble"]
