"""With whom a fit is shared, how its steps are taken, and where its state is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from core.sections import TrainSettings
from training.checkpoints import Checkpoints
from training.distributed.group import ALONE, Group


@dataclass(frozen=True)
class Sharing:
    """See above.

    Attributes:
        group: All workers.
        train: The section ``train``.
        checkpoints: Where state is kept after each epoch; nowhere when None.
    """

    group: Group = ALONE
    train: TrainSettings = field(default_factory=TrainSettings)
    checkpoints: Checkpoints | None = None

    def part(self, name: str) -> Sharing:
        """The same for one part of the fit, whose state is kept apart."""
        return self if self.checkpoints is None else replace(self, checkpoints=self.checkpoints.part(name))


UNSHARED = Sharing()
