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
from tf_dpce.runtimes.tokens import Tokenizer

CAPTIONS = [
    *example_captions(WORDS),
    *(text.encode() for text in ("A DOG", "dog's", "'dog'", "d’og ‘dog’", "dog_cats", "dog-cats")),
    *(text.encode() for text in ("nai\u0308ve NAÏVE", "狗狗 狗", "DOG\u00a0cats\u3000two")),
    *(text.encode() for text in ("ΑΣ ΑΣΑ", "İ ẞ ǅ", "\u2003\u2028", "\x85", "\x0b")),
    *(text.encode() for text in ("\ufeffdog", "a\u200bdog")),
    b"\xc3(dog\xff two\xe7\x8b",
    b"dog\x00cats",
    b"two " * 40,
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_the_graph(lowercase: bool):
    words = [*WORDS, "ας", "ασα", "i̇", "ß", "dog's"]
    graph = CaptionTokenizer(words, max_length=6, lowercase=lowercase)
    short = [c for c in CAPTIONS if len(c) <= status.MAX_CAPTION_BYTES]
    ids, _ = Tokenizer(words, 6, lowercase)(short)
    np.testing.assert_array_equal(ids, graph(tf.constant(short)))


def test_statuses_are_those_of_an_export(tiny_export: Path):
    answer = SessionModel(tiny_export / "1").run("encode_text", {"text": CAPTIONS})
    ids, codes = Tokenizer(WORDS, 6, lowercase=True)(CAPTIONS)
    assert codes.tolist() == answer["status"].tolist()
    assert set(codes.tolist()) == {0, 1, 2, 6}
    assert ids[codes != status.OK].sum() == 0
