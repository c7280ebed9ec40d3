"""Which graphs of similar items and users are exported, and from which vectors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from core.histories import Histories
from core.sections import SimilarSettings
from core.tensors import NEAREST_ITEMS, NEAREST_USERS, SIMILAR_ITEMS, SIMILAR_USERS, StepSpec
from training.models.recall_base import RecallModel
from training.models.similar import NearestItems, NearestUsers, vectors_of_users


def similar_extras(settings: SimilarSettings) -> tuple[str, ...]:
    """Names of the ensembles that are served."""
    wanted = {SIMILAR_ITEMS.name: settings.items, SIMILAR_USERS.name: settings.users}
    return tuple(name for name, served in wanted.items() if served)


def similar_source(settings: SimilarSettings, sources: tuple[str, ...]) -> str:
    """The recall source whose vectors say how alike items and users are."""
    return settings.source if settings.source in sources else sources[0]


def similar_graphs(
    settings: SimilarSettings, models: Mapping[str, RecallModel], histories: Histories, returned: int
) -> list[tuple[StepSpec, nn.Module]]:
    """The wanted graphs.

    Args:
        settings: The section ``similar``.
        models: Recall models by source.
        histories: What the users of the release did.
        returned: R.
    """
    model = models[similar_source(settings, tuple(models))]
    graphs: list[tuple[StepSpec, nn.Module]] = []
    if settings.items:
        graphs.append((NEAREST_ITEMS, NearestItems(model.similarity_vectors, returned)))
    if settings.users:
        graphs.append((NEAREST_USERS, NearestUsers(model, vectors_of_users(model, histories), returned)))
    return graphs
