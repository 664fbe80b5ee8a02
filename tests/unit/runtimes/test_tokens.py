"""Token ids and statuses of the runtimes are those of the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.export.tiny import WORDS
from tf_dpce.export.golden import example_captions
from tf_dpce.export.session_process import SessionModel
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.words import MAX_WORD_BYTES, plain_pieces
from tf_dpce.runtimes.tokens import Tokenizer

PIECES = ("dog", "do", "##g", "##s", "cat", "##é", "two", "狗", "naïve", "##bone", "x", "##x", "é")

CAPTIONS = [
    *example_captions(WORDS),
    *(text.encode() for text in ("A DOG", "dog's", "'dog'", "d’og ‘dog’", "dog_cats", "dog-cats")),
    *(text.encode() for text in ("nai\u0308ve NAÏVE", "狗狗 狗", "DOG\u00a0cats\u3000two")),
    *(text.encode() for text in ("ΑΣ ΑΣΑ", "İ ẞ ǅ", "\u2003\u2028", "\x85", "\x0b")),
    *(text.encode() for text in ("\ufeffdog", "a\u200bdog")),
    b"\xc3(dog\xff two\xe7\x8b",
    b"dog\x00cats",
    b"two " * 40,
    *(text.encode() for text in ("dogs dogbone catdogs", "dogma zebra dog", "🐕 two🐕 🐕dog two")),
    *(text.encode() for text in ("cate\u0301 caté café", "狗狗dog naïves", "##s s dog##s")),
    # As long as a word may be, and a byte longer.
    *(b"x" * length + b" dog" for length in (MAX_WORD_BYTES, MAX_WORD_BYTES + 1)),
    b"cat" + "é".encode() * ((MAX_WORD_BYTES - 3) // 2) + b" catx dog",
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_the_graph(lowercase: bool):
    words = [*WORDS, "ας", "ασα", "i̇", "ß", "dog's"]
    graph = CaptionTokenizer(words, max_length=6, lowercase=lowercase)
    short = [c for c in CAPTIONS if len(c) <= status.MAX_CAPTION_BYTES]
    ids, _ = Tokenizer(words, 6, lowercase)(short)
    np.testing.assert_array_equal(ids, graph(tf.constant(short)))


@pytest.mark.parametrize("lowercase", [True, False])
def test_pieces_are_those_of_the_graph(lowercase: bool):
    graph = CaptionTokenizer(PIECES, max_length=60, lowercase=lowercase, kind="wordpiece")
    traced = tf.function(graph, input_signature=[tf.TensorSpec([None], tf.string)])
    short = [c for c in CAPTIONS if len(c) <= status.MAX_CAPTION_BYTES]
    ids, _ = Tokenizer(PIECES, 60, lowercase, pieces=True)(short)
    np.testing.assert_array_equal(ids, graph(tf.constant(short)))
    np.testing.assert_array_equal(ids, traced(tf.constant(short)))
    # Some captions have pieces within words, and some words have none.
    assert {PIECES.index(piece) + 1 for piece in ("##s", "##é", "##x")} <= set(ids.ravel().tolist())


def test_a_word_is_split_at_its_longest_pieces():
    for word, pieces in (
        ("dog", ["dog"]),
        ("dogs", ["dog", "##s"]),
        ("dos", ["do", "##s"]),
        # "dog" is taken first, and "##ma" is none; a part alone is no answer.
        ("dogma", []),
        ("s", []),
        ("", []),
        ("x" * MAX_WORD_BYTES, ["x", *["##x"] * (MAX_WORD_BYTES - 1)]),
        ("x" * (MAX_WORD_BYTES + 1), []),
        ("é" * (MAX_WORD_BYTES // 2 + 1), []),
    ):
        assert plain_pieces(word, PIECES) == pieces


def test_statuses_are_those_of_an_export(tiny_export: Path):
    answer = SessionModel(tiny_export / "1").run("encode_text", {"text": CAPTIONS})
    ids, codes = Tokenizer(WORDS, 6, lowercase=True)(CAPTIONS)
    assert codes.tolist() == answer["status"].tolist()
    assert set(codes.tolist()) == {0, 1, 2, 6}
    assert ids[codes != status.OK].sum() == 0
