"""The workers that train one model together, as the models see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
CPU = torch.device("cpu")


class Group:
    """A process that trains alone: every exchange gives back what it was given.

    Attributes:
        rank: This worker's number from 0.
        count: How many workers there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes, logs and looks at held-out users."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of all workers' tensors of one shape, the same bits on all; may be written in place."""
        return tensor

    def gather_rows(self, own: np.ndarray, rows_of: Sequence[np.ndarray]) -> np.ndarray:
        """The whole table ``(rows, D)``.

        Args:
            own: This worker's rows ``(n, D)``.
            rows_of: By worker, int64: where its rows stand; together each row once.
        """
        return own

    def agree(self, make: Callable[[], T]) -> T:
        """What the first worker makes, on all workers; the others wait."""
        return make()

    def deal(self, count: int, make: Callable[[int], T]) -> list[T]:
        """``make(0)``, ``make(1)``, … of ``count`` things, each made by one worker, all of them on all workers."""
        return [make(number) for number in range(count)]

    def shared(self, module: nn.Module) -> nn.Module:
        """``module`` with the first worker's weights, whose gradients become the mean over the workers."""
        return module

    def apart(self, module: nn.Module) -> AbstractContextManager[None]:
        """No exchange of gradients for a :meth:`shared` module inside: they add up until the next backward pass."""
        return nullcontext()


ALONE = Group()


class Workers(Group):
    """The default process group of ``torch.distributed``, which must be initialised."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(tensor)
        return tensor

    def gather_rows(self, own: np.ndarray, rows_of: Sequence[np.ndarray]) -> np.ndarray:
        padded = torch.zeros(max(map(len, rows_of)), own.shape[1], dtype=torch.from_numpy(own).dtype)
        padded[: len(own)] = torch.from_numpy(own)  # all_gather takes equal shapes only
        parts = [torch.empty_like(padded) for _ in rows_of]
        dist.all_gather(parts, padded)
        table = np.empty((sum(map(len, rows_of)), own.shape[1]), dtype=own.dtype)
        for rows, part in zip(rows_of, parts, strict=True):
            table[rows] = part[: len(rows)].numpy()
        return table

    def agree(self, make: Callable[[], T]) -> T:
        return self._from(0, make() if self.is_first else None)

    def deal(self, count: int, make: Callable[[int], T]) -> list[T]:
        own = {number: make(number) for number in range(self.rank, count, self.count)}
        return [self._from(number % self.count, own.pop(number, None)) for number in range(count)]

    def shared(self, module: nn.Module) -> nn.Module:
        # Buffers are facts of the data and never change by training. Some weights have no gradient, such as the logit
        # of kinds where there is one kind.
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def apart(self, module: nn.Module) -> AbstractContextManager[None]:
        return cast(AbstractContextManager[None], cast(DistributedDataParallel, module).no_sync())

    def _from(self, source: int, value: T | None) -> T:
        box: list[T | None] = [value]
        dist.broadcast_object_list(box, src=source, device=CPU)
        return cast(T, box[0])
