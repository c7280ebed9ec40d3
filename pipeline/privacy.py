"""`conch privacy`: what an attacker learns from the models about whose events they have seen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.artifacts import latest_artifact, write_json
from core.dataset import load_dataset
from core.progress import Progress
from core.settings import Settings
from training.membership import Membership, audit_membership
from training.stage import use_hardware


def privacy_file(var: Path) -> Path:
    """Where the report finds what was measured; ``var`` is ``paths.var``."""
    return var / "reports" / "privacy" / "privacy.json"


def measure_privacy(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Attacks each recall model, fitted on half of the users; writes the figures for `conch report`.

    Raises:
        ArtifactError: No dataset yet.
        SettingsError: Too few users.
    """
    use_hardware(settings)
    artifact = latest_artifact(settings.paths.var, "dataset")
    dataset = load_dataset(artifact)
    found: dict[str, Membership] = {}
    for name in settings.recall.sources:
        found[name] = audit_membership(name, dataset, settings, progress)
        one = found[name]
        progress.say(
            f"privacy: {name}: membership AUC {one.auc:.3f} [{one.low:.3f}, {one.high:.3f}], "
            f"{one.members:,} members, {one.others:,} others; .5 is blind"
        )
    report = {
        "dataset": artifact.manifest.digest(),
        "fit": list(settings.train.fit),
        "membership": {name: asdict(one) for name, one in found.items()},
    }
    file = privacy_file(settings.paths.var)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, report)
    return report
