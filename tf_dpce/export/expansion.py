"""Words that a trained model never saw, understood by their word vectors.

A map from word vectors to the rows of the trained words gives further words of the same files
their rows. They are stored in float16, and answers say which words of a query are such words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.export.word_map import fit_word_map
from tf_dpce.logging import logger
from tf_dpce.preprocessing.vector_tables import check_tables, read_tables
from tf_dpce.preprocessing.word_vectors import words_of_vectors
from tf_dpce.preprocessing.words import plain_words
from tf_dpce.training.run_folder import Run

EXPANSION = "inferred words"  # of the provenance
DEFAULT_SIZE = 20_000
# A map of fewer words would be held against none.
_FEWEST = 10
_LITTLE = 0.2


def words_to_infer(
    paths: Sequence[Path], vocabulary: Collection[str], lowercase: bool, size: int | None
) -> list[str]:
    """Returns the words of files of word vectors that a model lacks, in the order of the files.

    Needs no TensorFlow. A word is one that a caption can have: no punctuation and no phrase.

    Args:
        paths: files of word vectors, the most frequent words first.
        vocabulary: the words that the model was trained on.
        lowercase: whether captions, and so the words, are lower-cased.
        size: how many words to take; None takes all, at most 20,000.

    Raises:
        UserError: a file cannot be used, or the files have fewer such words.

    Example:
        >>> words_to_infer([Path("glove.txt")], {"cat"}, lowercase=True, size=1)
        ['dog']
    """
    check_tables(paths)
    found = list(islice(_further(paths, set(vocabulary), lowercase), size or DEFAULT_SIZE))
    if not found or len(found) < (size or 0):
        message = (
            f"{', '.join(map(str, paths))}: {len(found)} words that the model lacks: "
            + (f"set --expand-size to {len(found)} at most, or " if found else "")
            + "give larger files"
        )
        raise UserError("expand.size", message, paths[0])
    return found


def _further(paths: Sequence[Path], known: set[str], lowercase: bool) -> Iterator[str]:
    for path in paths:
        for word in words_of_vectors(path):
            word = word.lower() if lowercase else word
            if word not in known and _is_word(word):
                known.add(word)
                yield word


def _is_word(word: str) -> bool:
    # A few words of large files are not UTF-8.
    return plain_words(word) == [word] and word == word.encode(errors="replace").decode()


def expand(run: Run, paths: Sequence[Path], words: Sequence[str]) -> Run:
    """Returns a run whose model and tokenizer know further words.

    Args:
        run: a trained run, whose captions are split into words.
        paths: files of word vectors, side by side as in training.
        words: the further words, see `words_to_infer`.

    Raises:
        UserError: a file has no vector for a word that the model was trained on, or all of them
            for too few.
    """
    from tf_dpce.models.expansion import expanded
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    tokenizer = run.tokenizer
    tables = read_tables(paths, tokenizer.words, tokenizer.lowercase, words)
    trained = len(tokenizer.words)
    has_vector = tables.found[:, :trained].any(axis=0)
    if (count := int(np.count_nonzero(has_vector))) < _FEWEST:
        message = f"{paths[0]}: only {count} trained words have a vector: give files with more"
        raise UserError("expand.trained", message, paths[0])
    learnt = run.model.word_embedding.embeddings.numpy()
    word_map = fit_word_map(tables.rows[:trained][has_vector], learnt[has_vector])
    share = f"{100 * word_map.explained:.1f} %"
    logger.info(
        f"{len(words)} words are understood by their vectors; the map explains {share} of the "
        f"rows of held-out trained words"
    )
    if word_map.explained < _LITTLE:
        logger.warning(
            "the word vectors say little of what was learnt: give those that training began with"
        )
    names = ", ".join(path.name for path in paths)
    return replace(
        run,
        model=expanded(run.model, word_map(tables.rows[trained:])),
        tokenizer=CaptionTokenizer(
            [*tokenizer.words, *words], tokenizer.max_length, tokenizer.lowercase, len(words)
        ),
        provenance={
            **run.provenance,
            EXPANSION: f"from {names}; {share} of held-out trained rows explained",
        },
    )
