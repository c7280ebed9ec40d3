"""Users of a dataset as the context step sends them to the models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.dataset import Dataset


def user_codes(dataset: Dataset, users: np.ndarray) -> Tensor:
    """Attribute codes int64 ``(B, F)`` with F at least 1, as the context step sends them."""
    codes = dataset.user_features.codes[users].astype(np.int64)
    return torch.from_numpy(codes if codes.shape[1] else np.zeros((len(users), 1), np.int64))
