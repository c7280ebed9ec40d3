"""Puts blessed releases live and takes them back, on record in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

from core.artifacts import Artifact
from core.errors import ReleaseError
from core.settings import Settings
from pipeline.loop.challenger import newest_release
from pipeline.loop.journal import Action
from serving import audit
from serving.activate import install_release, live_release
from serving.blessing import blessing_file, load_public_keys, read_blessing, verify
from serving.release import live_repository


class InstalledReleases:
    """Releases of the live repository; a server that runs on it serves them from its next start on.

    Args:
        settings: ``paths.var``.
        actor: Who acts, for the audit log.
    """

    def __init__(self, settings: Settings, actor: str = "conch retrain") -> None:
        self._settings, self._actor = settings, actor
        self._var = settings.paths.var

    def champion(self) -> Artifact | None:
        """The live release's artefact; None before the first one."""
        info = live_release(live_repository(self._var))
        return None if info is None else newest_release(self._settings, info.release_id)

    def publish(self, release: Artifact, reason: str, *, canary_only: bool) -> Action:
        """Installs a release that carries the gate's blessing.

        Raises:
            BlessingError: It carries none that is valid for these very files.
        """
        release_id = str(release.manifest.tensors["release_id"])
        blessing = read_blessing(blessing_file(self._var, release_id))
        keys = load_public_keys(self._var / "keys")
        verify(blessing, keys, release_id, release.manifest.digest(), datetime.now(UTC))
        release.verify()
        self._install(release, "activate", reason)
        return "published"

    def rollback(self, release_id: str, reason: str) -> None:
        """Puts an earlier release back. Raises ReleaseError where it is the live one already."""
        live = live_release(live_repository(self._var))
        if live is not None and live.release_id == release_id:
            raise ReleaseError("this release is live already", where=release_id)
        self._install(newest_release(self._settings, release_id), "rollback", reason)

    def _install(self, release: Artifact, action: str, reason: str) -> None:
        before = live_release(live_repository(self._var))
        info = install_release(release.path, live_repository(self._var))
        audit.append(
            audit.audit_file(self._var),
            actor=self._actor,
            action=action,
            reason=reason,
            inputs={"manifest_sha256": release.manifest.digest()},
            before=None if before is None else {"release": before.release_id},
            after={"release": info.release_id},
        )
