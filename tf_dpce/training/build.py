"""What belongs to a model besides: its word vectors from a file, and where its weights start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

import keras
import numpy as np

from tf_dpce.config import Config
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.word_vectors import look_up, open_vectors
from tf_dpce.training.assembly import build_model


def with_absolute_paths(config: Config) -> Config:
    """Returns a configuration whose files are found from any working folder."""
    weights, vectors = config.weights, config.vectors
    if weights not in ("imagenet", "none"):
        weights = str(Path(weights).resolve())
    if vectors is not None:
        vectors = str(Path(vectors).resolve())
    return replace(config, weights=weights, vectors=vectors)


def starting_model(
    config: Config,
    words: Sequence[str],
    manifest: Manifest,
    say: Callable[[str], None],
    data: Path | None = None,
) -> DualPath:
    """Returns the model that training starts from.

    Args:
        config: of the run.
        words: the vocabulary.
        manifest: of the prepared data.
        say: called with a line of how many words have a vector.
        data: the folder of that data, where the line shall say what they cover of its captions.

    Raises:
        UserError: weights or word vectors that do not fit, or cannot be read.
    """
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, len(words), manifest.splits["train"].instances)
    if config.vectors is not None:
        known = load_vectors(model, Path(config.vectors), words, manifest.lowercase, say)
        covered = _covered(data, known, manifest.lowercase) if data else ""
        say(f"{len(known)} of {len(words)} words start from {config.vectors}{covered}")
    return model


def _covered(data: Path, words: Sequence[str], lowercase: bool) -> str:
    # A fifth of the words may be nine tenths of what is said, or the rare ones.
    share = count_captions(data, "train", CaptionTokenizer(words, 1, lowercase)).coverage()
    return f": {share['known_words']:.1f} % of all words in the training captions"


def load_vectors(
    model: DualPath,
    path: Path,
    words: Sequence[str],
    lowercase: bool,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Puts word vectors from a file in place of random ones; returns for which words.

    Args:
        model: whose words they are.
        path: file of word vectors.
        words: the vocabulary.
        lowercase: whether it is lower-cased: see `look_up`.
        say: called with a line where the file may be cut short.

    Raises:
        UserError: the file cannot be read, its vectors have another width, or it knows no word.
    """
    embedding, file = model.text_tower.get_layer("text_embedding"), open_vectors(path)
    if file.width != embedding.output_dim:
        raise UserError(
            f"{path} holds vectors of {file.width} numbers, the model's words have "
            f"{embedding.output_dim}: set --text.embedding_dim {file.width}, or give another file"
        )
    rows, found = look_up(file, words, lowercase)
    if file.doubt:
        say(f"warning: {file.doubt}")
    if not found.any():
        raise UserError(f"{path} has no vector for any word of the vocabulary: give another file")
    embedding.embeddings.assign(np.where(found[:, None], rows, embedding.embeddings.numpy()))
    return list(compress(words, found))
