"""The vocabulary: what counts as a word, in which order, and that a file keeps it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from tests.errors import raises
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import (
    build_vocabulary,
    count_words,
    known_words,
    rank_words,
    read_vocabulary,
    without_words,
    write_vocabulary,
)
from tf_dpce.preprocessing.word_vectors import WordVectors

CAPTIONS = ["A dog (brown), asleep.", "a dog-sled", "Two dogs?", ""]


def test_words_are_counted_as_they_will_be_encoded():
    assert count_words(CAPTIONS, lowercase=True) == {
        **{"a": 2, "dog": 2, "brown": 1, "asleep": 1, "sled": 1, "two": 1, "dogs": 1}
    }
    assert count_words(CAPTIONS, lowercase=False)["A"] == 1


def test_lower_case_is_that_of_all_scripts():
    assert count_words(["Ärger ÄRGER ΩΜΕΓΑ"], lowercase=True) == {"ärger": 2, "ωμεγα": 1}


@pytest.mark.parametrize("count", [4095, 4096, 4097, 10_000])
def test_captions_beyond_one_batch_are_counted_too(count: int):
    captions = [f"dog w{place % 7}" for place in range(count)]
    expected = Counter(word for caption in captions for word in caption.split())
    assert count_words(captions, lowercase=True) == expected
    assert without_words([*captions, "..."]) == [False] * count + [True]


def test_the_most_frequent_word_comes_first_and_equals_by_alphabet():
    # dog 3; a and cat 2 each; Zoo and zoo 1 each, capitals first as their code points are.
    captions = ["dog cat a zoo", "dog a cat", "dog Zoo"]
    assert build_vocabulary(captions, lowercase=False) == ["dog", "a", "cat", "Zoo", "zoo"]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_captions_does_not_matter(seed: int):
    captions = [*CAPTIONS, "a cat", "the cat", "dogs"]
    mixed = random.Random(seed).sample(captions, len(captions))
    assert build_vocabulary(mixed, True) == build_vocabulary(captions, True)


def test_the_vocabulary_may_be_limited_to_some_words():
    counts = Counter({"dog": 3, "qzxw": 2, "cat": 1})
    assert rank_words(counts, only={"cat", "dog", "unseen"}) == ["dog", "cat"]
    assert rank_words(counts, only=set()) == []
    assert build_vocabulary(CAPTIONS, lowercase=True, only=["two", "dogs"]) == ["dogs", "two"]


def test_the_words_with_a_vector_are_those_of_the_captions_alone(tmp_path: Path):
    (tmp_path / "glove.txt").write_text("Dog 1 2\nsled 3 4\ncat 5 6\n")
    file = WordVectors(tmp_path / "glove.txt")
    assert known_words(file, CAPTIONS, lowercase=True) == {"dog", "sled"}
    assert known_words(file, CAPTIONS, lowercase=False) == {"sled"}


def test_no_captions_make_no_words():
    assert build_vocabulary([], lowercase=True) == []
    assert without_words([]) == []


@pytest.mark.parametrize("caption", ["", " ", " . , ", "-()?", "\t\n"])
def test_a_caption_of_delimiters_has_no_word(caption: str):
    assert without_words([caption, "dog", caption]) == [True, False, True]


# Among them white space of other scripts, which need not be a delimiter to be kept in a file.
ODD = ["naïve café 犬 🐕", "it's a dog's", "no\u00a0break \u00a0", "line\u2028end \u0085", "\u200b"]


def test_a_file_gives_the_words_back_and_their_ids_are_their_lines(tmp_path: Path):
    words = build_vocabulary(ODD, lowercase=True)
    path = tmp_path / "vocabulary.txt"
    write_vocabulary(path, words)
    assert path.read_bytes() == "".join(f"{word}\n" for word in words).encode()
    assert read_vocabulary(path) == words
    ids = CaptionTokenizer(read_vocabulary(path), 8, lowercase=True)(tf.constant(["🐕 犬"]))
    assert ids.numpy().tolist() == [[words.index("🐕") + 1, words.index("犬") + 1] + [0] * 6]


def test_a_file_without_a_last_newline_is_read(tmp_path: Path):
    (tmp_path / "vocabulary.txt").write_text("dog\ncat")
    assert read_vocabulary(tmp_path / "vocabulary.txt") == ["dog", "cat"]


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "vocabulary.txt"
    with raises("vocabulary.file", path):
        read_vocabulary(path)
    for contents, line in (
        (b"", None),
        (b"\n", 1),
        (b"dog\n\ncat\n", 2),
        (b"dog\ncat\ndog\n", 3),
        (b"dog\ncaf\xe9\n", None),
    ):
        path.write_bytes(contents)
        with raises("vocabulary.damaged", path, line):
            read_vocabulary(path)
