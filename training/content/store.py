"""The content tower as its own artefact, for catalogues to come."""

from __future__ import annotations

from core.artifacts import Artifact, create_artifact
from core.settings import Settings
from training.content.transfer import save_tower
from training.content.warm import Warmed

KIND = "content"


def save_content(warmed: Warmed, settings: Settings, parents: tuple[Artifact, ...]) -> Artifact:
    """Writes the tower that warmed a recall model; ``content.start`` takes the folder of such an artefact.

    Raises:
        ValueError: No tower was trained.
    """
    if warmed.fitted is None or warmed.inputs is None:
        raise ValueError("no tower was trained")
    sections = {"content": settings.content.model_dump(mode="json")}
    with create_artifact(
        settings.paths.var, KIND, settings=sections, seed=settings.train.seed, parents=parents
    ) as draft:
        draft.tensors |= {"model": warmed.model.kind, **save_tower(warmed.fitted.tower, warmed.inputs, draft.path)}
        draft.metrics |= warmed.metrics
    return draft.finished()
