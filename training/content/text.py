"""Text to vectors: hashed word and character n-grams, weighted by rarity, projected on their leading directions.

A latent semantic analysis (Deerwester et al. 1990) over hashed features (Weinberger et al. 2009): no vocabulary to
store, and an encoder learned on one catalogue reads the texts of another one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

HASHES = 1 << 14
WORD = re.compile(r"\w+")
CHARACTERS = (3, 4, 5)
"""Lengths of the character n-grams, word ends marked."""
OVERSAMPLING, POWER_STEPS = 8, 3


@dataclass(frozen=True)
class NgramEncoder:
    """A fitted encoder.

    Attributes:
        weights: float32 ``(HASHES,)``, rarity of each hashed feature; 0 where it tells nothing.
        projection: float32 ``(HASHES, n)``.
    """

    weights: np.ndarray
    projection: np.ndarray

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``(texts, n)`` of length about 1; zero for a text without known features."""
        found = _weighted(_counts(texts), self.weights) @ self.projection
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 1e-6).astype(np.float32)


def fit_ngrams(texts: Sequence[str], dimension: int) -> NgramEncoder:
    """Learns rarities and the leading directions of a catalogue's texts, the same every time.

    Args:
        texts: One per item, "" for none.
        dimension: n; fewer where there are fewer texts.
    """
    counts = _counts(texts)
    known = max(1, sum(map(bool, texts)))
    frequency = np.bincount(counts.indices, minlength=HASHES)
    # a feature of one text alone says nothing about others, one of all texts nothing at all
    rarity = np.where(frequency > 1, np.log((1 + known) / (1 + frequency)), 0.0).astype(np.float32)
    matrix = _weighted(counts, rarity)
    width = min(dimension, known)
    basis = np.random.default_rng(0).standard_normal((HASHES, min(width + OVERSAMPLING, HASHES)))
    for _ in range(POWER_STEPS):  # Halko et al. 2011, alg. 4.4
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    _, _, rotation = np.linalg.svd(matrix @ basis, full_matrices=False)
    return NgramEncoder(rarity, (basis @ rotation[:width].T).astype(np.float32))


def _weighted(counts: sparse.csr_matrix, weights: np.ndarray) -> sparse.csr_matrix:
    """Rows of length 1."""
    matrix = (counts @ sparse.diags(weights)).tocsr()
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)) @ matrix


def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """Presence of hashed features ``(texts, HASHES)``; crc32, since Python's own hash changes from run to run."""
    columns = [np.unique([zlib.crc32(gram.encode()) % HASHES for gram in _grams(text)]) for text in texts]
    starts = np.append(0, np.cumsum([len(found) for found in columns]))
    indices = np.concatenate(columns) if columns else np.zeros(0)
    return sparse.csr_matrix(
        (np.ones(len(indices), np.float32), indices.astype(np.int32), starts), shape=(len(texts), HASHES)
    )


def _grams(text: str) -> Iterator[str]:
    words = WORD.findall(text.lower())
    yield from (f"w {word}" for word in words)
    yield from (f"b {one} {two}" for one, two in pairwise(words))
    for word in words:
        marked = f"<{word}>"
        for length in CHARACTERS:
            yield from (f"c {marked[at : at + length]}" for at in range(len(marked) - length + 1))
