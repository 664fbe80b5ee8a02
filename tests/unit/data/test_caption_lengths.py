"""How long training captions are, and how many do not fit into a tower."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.samples import write_flickr8k
from tests.unit.training.tiny import run_tiny
from tf_dpce.data.caption_lengths import (
    count_lengths,
    describe_lengths,
    has_unsplit_words,
    warn_cut_captions,
)
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.flickr import read_flickr8k
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


def test_only_words_of_the_vocabulary_count():
    captions = ["A dog-sled (brown).", "two DOGS", "ein Hündchen, a dog", "a a a dog", "Dog?"]
    # Known in lower case are [a] [dog] sled brown; two dogs; [a] [dog]; [a] [a] [a] [dog]; [dog].
    for lowercase, lengths in ((True, {0: 1, 1: 1, 2: 2, 4: 1}), (False, {0: 2, 1: 1, 2: 1, 4: 1})):
        assert count_lengths(captions, CaptionTokenizer(["a", "dog"], 1, lowercase)) == lengths
    # Pieces take positions of their own: [a] [dog] [##s].
    pieces = CaptionTokenizer(["a", "dog", "##s"], 1, lowercase=True, kind="wordpiece")
    assert count_lengths(["a zebra, DOGS"], pieces) == {3: 1}


def test_every_caption_is_counted_and_the_longest_and_nearly_all_are_named():
    captions = ["a"] * 5_000 + ["a a"] * 4_000
    assert count_lengths(captions, CaptionTokenizer(["a"], 1, False)) == {1: 5_000, 2: 4_000}
    # 990 of 1,000 are 99 %.
    assert describe_lengths({8: 990, 12: 9, 40: 1}).endswith("up to 8")
    assert describe_lengths({8: 989, 12: 10, 40: 1}).endswith("up to 12")


CHINESE = ["白色背景上的红色圆", "一只狗在公园里奔跑"]


@pytest.mark.parametrize(
    ("lengths", "words", "unsplit"),
    [
        ({1: 2}, CHINESE, True),
        # Its commas split a sentence into two or three.
        ({2: 1, 3: 1}, ["一只狗在公园里", "奔跑着", "追一个红色的球"], True),
        ({1: 2}, ["หมาวิ่งในสวน", "แมวนอนบนเก้าอี้"], True),
        ({1: 2}, ["a_red_dress_with_dots", "two_dogs_in_a_park"], True),
        # Split by a segmenter; labels of one word; sentences.
        ({7: 2}, ["白色", "背景", "上", "的", "红色", "圆", "一只"], False),
        ({1: 3}, ["dog", "motorcycle", "refrigerator"], False),
        ({9: 2}, ["Geschwindigkeitsbegrenzung", "Donaudampfschifffahrt"], False),
    ],
)
def test_sentences_without_spaces_are_noticed(
    lengths: dict[int, int], words: list[str], unsplit: bool
):
    assert has_unsplit_words(lengths, words) == unsplit


def test_captions_longer_than_the_tower_are_logged_with_the_words_that_are_lost(caplog):
    with caplog.at_level(logging.WARNING, "tf_dpce"):
        warn_cut_captions({8: 990, 12: 10}, max_length=12)
        assert caplog.records == []
        # 9 captions lose 12 - 10 words, one loses 40 - 10.
        warn_cut_captions({8: 990, 12: 9, 40: 1}, max_length=10)
    (record,) = caplog.records
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", record.message)]
    assert numbers == [10, 1_000, 10, 40, 48]


@pytest.mark.full
def test_train_logs_the_captions_that_are_cut(tmp_path: Path, capsys):
    root = write_flickr8k(tmp_path / "flickr8k")
    captions = root / "Flickr8k_text" / "Flickr8k.token.txt"
    captions.write_text(captions.read_text().replace("A train dog .", "A train dog on a long line"))
    prepare(read_flickr8k(root), tmp_path / "data", source="flickr8k", lowercase=True)
    options = {"text__max_length": 5, "stage1__epochs": 1, "stage2__epochs": 0}
    assert run_tiny(tmp_path / "data", tmp_path / "run", **options) == 0
    # Six training images have one caption of seven words each, and one of four.
    assert "6 of 12 training captions have more than the 5 tokens" in capsys.readouterr().err
