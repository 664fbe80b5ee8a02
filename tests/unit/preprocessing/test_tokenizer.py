"""Captions -> words -> ids, and the shift of a caption."""

from __future__ import annotations

import unicodedata

import numpy as np
import tensorflow as tf

from tests.errors import raises
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer, position_shift, split_words
from tf_dpce.preprocessing.words import plain_words

# Unassigned, half of a pair, private.
UNASSIGNED = ("Cn", "Cs", "Co")

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
        ("it's 5 o'clock; now!", "it's 5 o'clock now"),
        ('"A red square!": [left/right] {of} <it>…', "A red square left right of <it>"),
        ("“a” «b» – „c“ — ‹d›¿e?¡f!", "a b c d e f"),
        ("赤い四角、左。右！", "赤い四角 左 右"),
        # Apostrophes: inside a word, around words, and the endings of tokenised captions.
        ("'a red square' don’t don`t dogs' ''x'' ' '", "a red square don't don't dogs x"),
        ("the man 's hat is n't 'S 're 'tis", "the man 's hat is n't 'S 're tis"),
        ("3.5 m, 50% u.s. AT&T #7 a_b x@y.z", "3 5 m 50 u s AT T 7 a_b x y z"),
        # An accent in one character or in two.
        ("cafe\u0301 caf\u00e9", "caf\u00e9 caf\u00e9"),
        ("naïve 狗", "naïve 狗"),
        ("", ""),
        (" .,-?() \t", ""),
        ("dog", "dog"),
    ):
        assert split(caption) == [word.encode() for word in words.split()]


def test_the_graph_splits_as_plain_python_does():
    # Each character between letters, at the edges of a word, and alone.
    signs = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) not in UNASSIGNED]
    captions = [f"a{sign}b '{sign}c{sign}' {sign}" for sign in signs]
    plain = [[word.encode() for word in plain_words(caption)] for caption in captions]
    assert split_words(tf.constant(captions)).to_list() == plain
    assert len(signs) > 100_000


def test_bytes_that_are_not_utf8_become_replacement_characters():
    replaced = ["a", "\ufffd\ufffd", "dog\ufffd"]
    assert split(b"a \xff\xfe dog\x80") == [word.encode() for word in replaced]


def test_known_words_have_ids_from_one_and_fill_the_first_positions():
    for caption, ids in (
        ("a dog cat Dog", [1, 2, 3, 4]),
        ("狗 naïve", [6, 5, 0, 0]),
        ("zebra a zebra zebra cat", [1, 3, 0, 0]),
        # Four unknown words before four known ones: they do not push those out.
        ("q w e r a dog a cat", [1, 2, 1, 3]),
        ("a dog a cat a dog", [1, 2, 1, 3]),
        ("zebra", [0, 0, 0, 0]),
        (b"\xff\xff", [0, 0, 0, 0]),
    ):
        assert encode(caption) == [ids]
    assert encode("a dog a cat a dog", length=2) == [[1, 2]]
    none = CaptionTokenizer(WORDS, 4, False)(tf.constant([], tf.string))
    assert none.dtype == tf.int32 and none.shape == (0, 4)


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


# --- position shift -------------------------------------------------------------------------------

LENGTH = 8


def left_aligned(words: int) -> np.ndarray:
    return np.array([*range(1, words + 1), *([0] * (LENGTH - words))], np.int32)


def test_each_row_is_shifted_by_its_own_draw():
    # n words have T - n + 1 positions to start, of which evenly spread draws choose each as often.
    below_one = np.nextafter(np.float32(1), np.float32(0))
    values = [*np.arange(0, 1, 0.05, np.float32), below_one, np.float32(1)]
    rows = [(words, value) for words in range(LENGTH + 1) for value in values]
    ids = np.stack([left_aligned(words) for words, _ in rows])
    draws = tf.constant([value for _, value in rows])
    shifted = position_shift(tf.constant(ids), draws).numpy()
    assert shifted.dtype == np.int32
    for row, (words, value) in zip(shifted, rows, strict=True):
        start = min(int(value * np.float32(LENGTH - words + 1)), LENGTH - words)
        np.testing.assert_array_equal(row, np.roll(left_aligned(words), start))
