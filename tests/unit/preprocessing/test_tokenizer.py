"""Captions -> words -> ids, and the shift of a caption."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tf_dpce.preprocessing.tokenizer import (
    CaptionTokenizer,
    position_shift,
    split_words,
)

WORDS = ("a", "dog", "cat", "Dog", "naïve", "狗")


def split(caption: str | bytes) -> list[bytes]:
    return split_words(tf.constant([caption])).to_list()[0]


def encode(*captions: str | bytes, length: int = 4, lowercase: bool = False) -> list[list[int]]:
    tokenizer = CaptionTokenizer(WORDS, length, lowercase)
    return tokenizer(tf.constant(list(captions))).numpy().tolist()


def test_words_stand_between_delimiters():
    for caption, words in (
        ("A dog (brown), asleep.", "A dog brown asleep"),
        ("one-two three.four,five(six)seven?eight", "one two three four five six seven eight"),
        ("  -- .,()? tabs\tand\nlines \r\n end..", "tabs and lines end"),
        ("it's 5 o'clock; now!", "it's 5 o'clock; now!"),
        ("naïve 狗", "naïve 狗"),
        ("", ""),
        (" .,-?() \t", ""),
        ("dog", "dog"),
    ):
        assert split(caption) == [word.encode() for word in words.split()]


def test_bytes_that_are_not_utf8_become_replacement_characters():
    replaced = ["a", "\ufffd\ufffd", "dog\ufffd"]
    assert split(b"a \xff\xfe dog\x80") == [word.encode() for word in replaced]


def test_a_batch_of_none():
    assert split_words(tf.constant([], tf.string)).to_list() == []
    assert CaptionTokenizer(WORDS, 4, False)(tf.constant([], tf.string)).shape == (0, 4)


def test_an_id_is_the_position_of_the_word_counted_from_one():
    assert encode("a dog cat Dog", "狗 naïve") == [[1, 2, 3, 4], [6, 5, 0, 0]]


def test_unknown_words_are_dropped_and_take_no_position():
    assert encode("zebra a zebra zebra cat") == [[1, 3, 0, 0]]
    # Four unknown words before four known ones: they do not push those out.
    assert encode("q w e r a dog a cat") == [[1, 2, 1, 3]]


def test_what_is_beyond_the_last_position_is_cut_off():
    assert encode("a dog a cat a dog", length=4) == [[1, 2, 1, 3]]
    assert encode("a dog a cat a dog", length=2) == [[1, 2]]


def test_a_caption_without_a_known_word_has_no_token():
    for caption in ("", "zebra", " .?", b"\xff\xff"):
        assert encode(caption) == [[0, 0, 0, 0]]


def test_case_counts_unless_lowered():
    assert encode("DOG Dog dog A") == [[4, 2, 0, 0]]
    assert encode("DOG Dog dog A", lowercase=True) == [[2, 2, 2, 1]]
    assert encode("NAÏVE", lowercase=True) == [[5, 0, 0, 0]]


def test_every_word_is_looked_up_the_unknown_ones_too():
    tokenizer = CaptionTokenizer(WORDS, max_length=1, lowercase=True)
    ids = tokenizer.look_up(tf.constant(["zebra a (CAT)", " .?", "zebra"]))
    assert ids.to_list() == [[0, 1, 3], [], [0]]


def test_a_vocabulary_is_adapted_to_the_captions():
    tokenizer = CaptionTokenizer.adapt(["A dog.", "a cat"], max_length=3)
    assert (tokenizer.words, tokenizer.vocabulary_size) == (("a", "cat", "dog"), 3)
    assert (tokenizer.max_length, tokenizer.lowercase) == (3, True)
    assert tokenizer(["A cat, a DOG"]).numpy().tolist() == [[1, 2, 1]]
    assert CaptionTokenizer.adapt(["A dog"], lowercase=False).words == ("A", "dog")
    with raises("vocabulary.empty"):
        CaptionTokenizer.adapt([" .", ""])


def test_ids_are_int32_of_a_fixed_width():
    ids = CaptionTokenizer(WORDS, 4, True)(tf.constant(["a", "dog"]))
    assert ids.dtype == tf.int32 and ids.shape == (2, 4)


@pytest.mark.parametrize("lowercase", [False, True])
def test_the_same_eagerly_and_in_a_dataset(lowercase: bool):
    captions = [b"A dog", b"", b"cat \xff Dog - a, a. a; a", "NAÏVE 狗".encode()]
    tokenizer = CaptionTokenizer(WORDS, 4, lowercase)
    dataset = tf.data.Dataset.from_tensor_slices(captions).batch(3).map(tokenizer)
    mapped = np.concatenate([batch.numpy() for batch in dataset])
    np.testing.assert_array_equal(mapped, tokenizer(tf.constant(captions)).numpy())


# --- position shift -------------------------------------------------------------------------------

LENGTH = 8


def left_aligned(words: int) -> np.ndarray:
    return np.array([*range(1, words + 1), *([0] * (LENGTH - words))], np.int32)


def starts(words: int, draws: np.ndarray) -> np.ndarray:
    """Start of each shifted caption, after checking that its words are whole and in order."""
    ids = np.tile(left_aligned(words), (len(draws), 1))
    shifted = position_shift(tf.constant(ids), tf.constant(draws, tf.float32)).numpy()
    assert shifted.dtype == np.int32 and shifted.shape == ids.shape
    first = (shifted > 0).argmax(axis=1)
    for row, start in zip(shifted, first, strict=True):
        expected = np.zeros(LENGTH, np.int32)
        expected[start : start + words] = range(1, words + 1)
        np.testing.assert_array_equal(row, expected)
    return first


@pytest.mark.parametrize("words", range(1, LENGTH + 1))
def test_every_start_is_drawn_equally_often(words: int):
    # n words have T - n + 1 positions to start; evenly spread draws fall on each alike.
    choices, each = LENGTH - words + 1, 20
    draws = (np.arange(choices * each) + 0.5) / (choices * each)
    counts = np.bincount(starts(words, draws), minlength=choices)
    assert counts.tolist() == [each] * choices


@pytest.mark.parametrize("words", range(1, LENGTH + 1))
def test_the_ends_of_the_draws(words: int):
    below_one = np.nextafter(np.float32(1), np.float32(0))
    assert starts(words, np.array([0.0, below_one, 1.0])).tolist() == [0] + [LENGTH - words] * 2


def test_full_and_empty_captions_stay_as_they_are():
    ids = np.array([left_aligned(LENGTH), left_aligned(0)])
    for draw in (0.0, 0.3, 0.999):
        shifted = position_shift(tf.constant(ids), tf.fill([2], draw))
        np.testing.assert_array_equal(shifted.numpy(), ids)


@pytest.mark.parametrize("seed", range(3))
def test_each_row_is_shifted_by_its_own_draw(seed: int):
    draw = np.random.default_rng(seed)
    lengths, draws = draw.integers(1, LENGTH + 1, 50), draw.uniform(size=50).astype(np.float32)
    ids = np.stack([left_aligned(n) for n in lengths])
    shifted = position_shift(tf.constant(ids), tf.constant(draws)).numpy()
    for row, length, value in zip(shifted, lengths, draws, strict=True):
        start = int(value * np.float32(LENGTH - length + 1))
        expected = np.roll(left_aligned(length), start)
        np.testing.assert_array_equal(row, expected)
