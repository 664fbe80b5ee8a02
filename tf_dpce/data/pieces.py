"""The pieces of words that WordPiece learns from training captions, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tf_dpce.data.input_pipeline import caption_groups
from tf_dpce.preprocessing.vocabulary import count_words
from tf_dpce.preprocessing.words import JOINER

_IMAGES = 1024
# A piece of less would be known from a single caption.
_FEWEST = 2


def learn_pieces(data: Path, lowercase: bool, size: int, whole: Sequence[str] = ()) -> list[str]:
    """Learns pieces of words from the training captions of prepared data, and from no others.

    The same captions give the same pieces, in whatever order they are stored.

    Args:
        data: folder of prepared data.
        lowercase: whether its captions are lower-cased.
        size: about how many pieces. There are fewer if the captions are few, and more if they have
            more letters, each of which is a piece at the start of a word and within one.
        whole: words that must not be split.

    Returns:
        The pieces, single letters last.
    """
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    # Sorted, because the learner takes words of equal counts in the order that it is given.
    counts = sorted(count_words(training_captions(data), lowercase).items())
    pieces = learner.learn(counts, size, list(whole), lower_thresh=_FEWEST, joiner=JOINER)
    return sorted(pieces, key=lambda piece: len(piece.removeprefix(JOINER)) == 1)


def training_captions(data: Path) -> list[str]:
    """Returns the training captions of prepared data, in the order of the shards."""
    batches = (batch["captions"].flat_values for batch in caption_groups(data, "train", _IMAGES))
    return [caption.decode() for batch in batches for caption in batch.numpy().tolist()]
