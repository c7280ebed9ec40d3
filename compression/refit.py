"""The models that candidates are judged with: fitted again, as the shipped ones were, on what came before the split.

The shipped models have learned from the valid split; what compression costs is measured on users whose next events no
model has seen. The ranker keeps its weights and gets the item tables of the refit: it never looks at a vector itself,
only at cosines, so that tables of another fit take the place of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from core.artifacts import Artifact
from core.dataset import SPLITS, Dataset
from core.progress import Progress
from core.settings import Settings, change_settings
from training.models.fitters import fitter
from training.models.ranker import Ranker
from training.models.recall import RecallModel
from training.ranking.fit import fitted_tables
from training.ranking.sources import RecallSet


@dataclass(frozen=True)
class Chain:
    """Recall models and ranker that belong together.

    Attributes:
        recall: By source, in order.
        ranker: Over the same fit's item tables.
        fit: Splits that the recall models learned from.
    """

    recall: Mapping[str, RecallModel]
    ranker: Ranker
    fit: tuple[str, ...]

    def modules(self) -> dict[str, nn.Module]:
        """By step."""
        return {f"recall_{source}": model for source, model in self.recall.items()} | {"rank": self.ranker}


def judging_chain(
    shipped: Chain, sources: Mapping[str, Artifact], dataset: Dataset, settings: Settings, progress: Progress
) -> Chain:
    """The chain as it would be had it been fitted on the splits before ``settings.compress.split`` alone.

    Args:
        shipped: What is compressed in the end.
        sources: Artefacts of the recall models, whose settings are used again.
        dataset: All data.
        settings: ``compress`` and whatever the artefacts do not record.
        progress: Where bars go.
    """
    before = tuple(split for split in SPLITS[: SPLITS.index(settings.compress.split)] if split in shipped.fit)
    if before == shipped.fit:
        return shipped
    events = dataset.events.of_splits(before)
    models = {}
    for source, artifact in sources.items():
        used = as_recorded(settings, artifact)
        models[source] = fitter(source)(dataset, events, used, seed=artifact.manifest.seed, progress=progress).eval()
    seed = next(iter(sources.values())).manifest.seed
    tables = fitted_tables(dataset, events, RecallSet(models), settings, seed)
    return Chain(models, shipped.ranker.with_tables(tables).eval(), before)


def as_recorded(settings: Settings, artifact: Artifact) -> Settings:
    """Settings with the sections that an artefact was made with."""
    recorded = artifact.manifest.settings
    values = {f"{name}.{key}": value for name, section in recorded.items() for key, value in section.items()}
    return change_settings(settings, values)
