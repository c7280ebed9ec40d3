"""A replica with files of its own follows a pointer elsewhere, say on a volume that it may only read.

``python -m serving.follow --config FILE --from FOLDER [--once]``: FOLDER is the ``paths.var`` that publishers change.
Each replica fetches, checks and loads the releases of that pointer by itself, and flips when they answer: publishers
need not know how many replicas there are, and Triton need not listen on the network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.artifacts import MANIFEST
from core.errors import ConchError, PublishError
from core.settings import load_settings
from serving.ledger import read_ledger
from serving.pointer import Pointer, pointer_file, read_pointer
from serving.preflight import check_release
from serving.publish import Outcome, Publisher
from serving.release import read_release

LOOK_SECONDS = 2.0
AFTER_FAILURE_SECONDS = 30.0
ACTOR = "follower"


class Follower(Publisher):
    """Makes this replica serve what a pointer elsewhere says.

    Args:
        var: ``paths.var`` of this replica.
        source: ``paths.var`` that publishers change; only read.
    """

    def __init__(self, var: Path, source: Path) -> None:
        super().__init__(var, ACTOR)
        self._source = source

    def follow(self) -> Outcome | None:
        """Does what is missing; None where this replica agrees already, or nothing is live over there.

        Raises:
            ReleaseError: A release of the pointer cannot be served; what served before still does.
        """
        wanted = read_pointer(pointer_file(self._source))
        if wanted is None or self.has_followed:
            return None
        # Whether they may be live is settled over there; here only that their files are what their manifests say.
        paths = [self._find(name) for name in wanted.releases]
        releases = [(path, check_release(path, blessed_in=None, now=self._now())[0]) for path in paths]
        with self._change("follow", wanted.stable, f"epoch {wanted.epoch} of {self._source}") as change:
            for path, info in releases:
                self._prepare(change, path, info)
            if change.before is None or change.before.stable != wanted.stable:
                self._promote(change, wanted.stable)
            self._point(change, _arms(wanted))
            self._remember(lambda ledger: read_ledger(self._source).with_live(wanted.stable))
            self._settle(change)
        return self._outcome(change)

    @property
    def has_followed(self) -> bool:
        """Whether this replica serves what is live over there."""
        wanted, own = read_pointer(pointer_file(self._source)), read_pointer(pointer_file(self._var))
        return wanted is not None and own is not None and _arms(own) == _arms(wanted)

    def _find(self, release_id: str) -> Path:
        folder = self._source / "artifacts" / "release"
        for manifest in sorted(folder.glob(f"[0-9]*/{MANIFEST}"), reverse=True):
            if read_release(manifest.parent).release_id == release_id:
                return manifest.parent
        raise PublishError("the pointer names a release that is not there", where=str(folder), expected=release_id)


def keep_following(follower: Follower, say: Callable[[str], None], *, once: bool) -> None:
    """Follows for ever; with ``once`` until this replica holds what is live over there."""
    waiting = False
    while True:
        pause = LOOK_SECONDS
        try:
            outcome = follower.follow()
            if outcome is not None:
                say(f"{outcome.after.stable} is live here, {outcome.durations_ms['all']:,.0f} ms")
                for complaint in outcome.complaints:
                    say(f"{complaint}; it follows at its next start")
            if once and follower.has_followed:
                return
            if once and not waiting:
                waiting = True
                say("waiting for a release to go live")
        except (ConchError, OSError) as error:
            say(str(error))
            pause = AFTER_FAILURE_SECONDS
        time.sleep(pause)


def _arms(pointer: Pointer) -> dict[str, object]:
    return pointer.model_dump(exclude={"epoch"})


def main(argv: list[str] | None = None) -> None:
    """Runs until it is stopped, or with ``--once`` until this replica can start."""
    parser = argparse.ArgumentParser(prog="serving.follow")
    parser.add_argument("--config", type=Path, action="append", default=[], help="settings file; may repeat")
    parser.add_argument("--from", type=Path, required=True, dest="source", help="paths.var of the publishers")
    parser.add_argument("--once", action="store_true", help="end when this replica holds what is live")
    asked = parser.parse_args(argv)

    def say(text: str) -> None:
        sys.stderr.write(f"serving.follow: {text}\n")
        sys.stderr.flush()

    keep_following(Follower(load_settings(asked.config).paths.var, asked.source), say, once=asked.once)


if __name__ == "__main__":
    main()
