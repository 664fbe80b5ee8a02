"""How much of a split's captions a vocabulary covers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tf_dpce.data.prepare import prepare
from tf_dpce.datasets import listing
from tf_dpce.evaluation.html_report.captions import read_captions
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

CAPTIONS = {
    "one.png": ["A dog-sled (brown).", "two DOGS"],
    "two.png": ["Ein Hund, zwei Hunde"],
    "three.png": ["a a a dog", "zebra两只", "Dog?"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Prepared data, with the same captions in every split."""
    folder = tmp_path_factory.mktemp("captions")
    images = []
    for split in listing.SPLITS:
        for name, captions in CAPTIONS.items():
            path = folder / "images" / f"{split}-{name}"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
            images.append(listing.Image(path.name, path, captions, split))
    prepare(images, folder, source="table")
    return folder


def test_words_are_counted_as_they_are_encoded(data):
    # Lower-cased, words that are known in brackets:
    #   [a] [dog] sled brown; two dogs; ein hund zwei hunde; [a] [a] [a] [dog]; zebra两只; [dog]
    # 16 words, of which 7 are known; three captions have none.
    tokenizer = CaptionTokenizer(["a", "dog"], max_length=8, lowercase=True)
    found = count_captions(data, "test", tokenizer)
    assert found.per_image.tolist() == [2, 1, 3]
    assert found.images.tolist() == [0, 0, 1, 2, 2, 2]
    assert (found.words, found.known_words, found.without_known_word) == (16, 7, 3)
    assert found.coverage() == {
        "known_words": pytest.approx(100 * 7 / 16),
        "captions_without_known_word": pytest.approx(100 * 3 / 6),
    }


def test_captions_with_more_known_words_than_positions_are_counted(data):
    # Two captions have more than one known word: [a] [dog], and [a] [a] [a] [dog].
    for positions, cut, lost in ((1, 2, 1 + 3), (2, 1, 2), (3, 1, 1), (4, 0, 0)):
        tokenizer = CaptionTokenizer(["a", "dog"], positions, lowercase=True)
        found = count_captions(data, "test", tokenizer)
        # Those beyond the last position are known too.
        assert (found.cut, found.lost_words, found.known_words) == (cut, lost, 7)


@pytest.mark.parametrize(
    ("kind", "tokens", "more"),
    [
        ("words", ["a", "dog"], {"dogs", "zebra两只"}),
        ("wordpiece", ["a", "dog", "##s"], {"zebra两只"}),
        ("characters", ["a", "dog"], {"dogs", "zebra", "两", "只"}),
    ],
)
def test_a_report_names_unknown_tokens_of_each_kind(data, kind, tokens, more):
    encoder = SimpleNamespace(tokenizer=CaptionTokenizer(tokens, 8, True, kind=kind))
    found = read_captions(SimpleNamespace(folder=data, split="test", encoder=encoder))
    assert set(found.unknown) == {*"sled brown two ein hund zwei hunde".split()} | more
