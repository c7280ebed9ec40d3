"""Puts blessed releases live and takes them back, through the publisher."""

from __future__ import annotations

from core.artifacts import Artifact
from core.rollout import STAGES
from core.settings import Settings
from pipeline.loop.challenger import newest_release
from pipeline.loop.journal import Action
from serving.pointer import pointer_file, read_pointer
from serving.publish import Publisher


class PublishedReleases:
    """Releases of ``paths.var`` and of the servers that run on it.

    Args:
        settings: ``paths.var``.
        actor: Who acts, for the audit log.
        starts_as_canary: A release without off-policy evidence starts as a canary; False makes it live at once.
    """

    def __init__(self, settings: Settings, actor: str = "conch retrain", *, starts_as_canary: bool = True) -> None:
        self._settings = settings
        self._publisher = Publisher(settings.paths.var, actor)
        self._starts_as_canary = starts_as_canary

    def champion(self) -> Artifact | None:
        """The live release's artefact; None before the first one."""
        pointer = read_pointer(pointer_file(self._settings.paths.var))
        return None if pointer is None else newest_release(self._settings, pointer.stable)

    def publish(self, release: Artifact, reason: str, *, canary_only: bool) -> Action:
        """Makes a release live that carries the gate's blessing, or a canary of the smallest weight.

        Raises:
            BlessingError: It carries none that is valid for these very files.
        """
        if canary_only and self._starts_as_canary:
            self._publisher.start_canary(release.path, weight=STAGES[0], reason=reason)
            return "canary"
        self._publisher.activate(release.path, reason=reason)
        return "published"

    def rollback(self, release_id: str | None, reason: str) -> None:
        """Goes back to an earlier release; to the one before the live one when None."""
        self._publisher.rollback(reason=reason, to=release_id)
