"""Makes a table of word vectors for `train --vectors` with a sentence encoder of your own.

    python -m examples.encode_words data/flickr8k/vocabulary.txt my_encoder words.npz

`my_encoder` is a module of yours, such as `my_encoder.py` in the working folder. Its function
`encode` takes a list of words and returns their vectors, an array `[len(words), E]`:

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer("intfloat/multilingual-e5-small")

    def encode(words):
        return model.encode([f"query: {word}" for word in words])

Give the table beside another one: `--vectors glove.txt words.npz --text.word_dim 684`. `train`
centres and scales both.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tf_dpce.preprocessing.vocabulary import read_vocabulary

BATCH = 256


def word_table(words: Sequence[str], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Returns the vectors of words, float32 `[V, E]`.

    Args:
        words: V words.
        encode: The function of the user's module.

    Raises:
        SystemExit: `encode` did not return one finite vector for each word.
    """
    parts = []
    for start in range(0, len(words), BATCH):
        batch = list(words[start : start + BATCH])
        vectors = np.asarray(encode(batch), np.float32)
        width = parts[0].shape[1:] if parts else vectors.shape[1:]
        if vectors.ndim != 2 or vectors.shape != (len(batch), *width):
            sys.exit(f"encode returned an array {vectors.shape} for {len(batch)} words")
        if not np.isfinite(vectors).all():
            sys.exit(f"encode returned a number that is not finite, for {batch[0]} or a later word")
        parts.append(vectors)
    return np.concatenate(parts)


def main(vocabulary: Path, module: str, out: Path) -> None:
    """Writes the table of a vocabulary."""
    words = read_vocabulary(vocabulary)
    vectors = word_table(words, importlib.import_module(module).encode)
    np.savez(out, words=np.array(words), vectors=vectors)
    print(f"{out}: {len(words)} words, {vectors.shape[1]} numbers each")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
