"""The vocabulary: what counts as a word, in which order, and that a file keeps it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from tests.errors import raises
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import (
    count_words,
    rank_words,
    read_vocabulary,
    without_words,
    write_vocabulary,
)

CAPTIONS = ["A dog (brown), asleep.", "a dog-sled", "Two dogs?", ""]


def test_words_are_counted_as_they_will_be_encoded():
    assert count_words(CAPTIONS, lowercase=True) == {
        **{"a": 2, "dog": 2, "brown": 1, "asleep": 1, "sled": 1, "two": 1, "dogs": 1}
    }
    assert count_words(CAPTIONS, lowercase=False)["A"] == 1
    # Lower case is that of all scripts.
    assert count_words(["Ärger ÄRGER ΩΜΕΓΑ"], lowercase=True) == {"ärger": 2, "ωμεγα": 1}
    assert count_words([], lowercase=True) == {} and without_words([]) == []


@pytest.mark.parametrize("count", [4096, 4097])
def test_captions_beyond_one_batch_are_counted_too(count: int):
    captions = [f"dog w{place % 7}" for place in range(count)]
    expected = Counter(word for caption in captions for word in caption.split())
    assert count_words(captions, lowercase=True) == expected
    assert without_words([*captions, "..."]) == [False] * count + [True]


def test_the_most_frequent_word_comes_first_and_equals_by_alphabet():
    # dog 3; a and cat 2 each; Zoo and zoo 1 each, capitals first as their code points are.
    counts = count_words(["dog cat a zoo", "dog a cat", "dog Zoo"], lowercase=False)
    assert rank_words(counts) == ["dog", "a", "cat", "Zoo", "zoo"]
    assert rank_words(counts, only={"cat", "dog", "unseen"}) == ["dog", "cat"]
    assert rank_words(counts, only=set()) == []


def test_a_caption_of_delimiters_has_no_word():
    empty = ["", " ", " . , ", "-()?", "\t\n"]
    assert without_words([*empty, "dog"]) == [True] * 5 + [False]


# Among them white space of other scripts, which need not be a delimiter to be kept in a file.
ODD = ["naïve café 犬 🐕", "it's a dog's", "no\u00a0break \u00a0", "line\u2028end \u0085", "\u200b"]


def test_a_file_gives_the_words_back_and_their_ids_are_their_lines(tmp_path: Path):
    words = rank_words(count_words(ODD, lowercase=True))
    path = tmp_path / "vocabulary.txt"
    write_vocabulary(path, words)
    assert path.read_bytes() == "".join(f"{word}\n" for word in words).encode()
    assert read_vocabulary(path) == words
    ids = CaptionTokenizer(read_vocabulary(path), 8, lowercase=True)(tf.constant(["🐕 犬"]))
    assert ids.numpy().tolist() == [[words.index("🐕") + 1, words.index("犬") + 1] + [0] * 6]
    # Without a last line end.
    path.write_text("dog\ncat")
    assert read_vocabulary(path) == ["dog", "cat"]


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "vocabulary.txt"
    with raises("vocabulary.file", path):
        read_vocabulary(path)
    for contents, line in (
        (b"", 1),
        (b"\n", 1),
        (b"dog\n\ncat\n", 2),
        (b"dog\ncat\ndog\n", 3),
        (b"dog\ncaf\xe9\n", None),
    ):
        path.write_bytes(contents)
        with raises("vocabulary.damaged", path, line):
            read_vocabulary(path)
