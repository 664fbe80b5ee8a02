"""Characters as tokens, for scripts that have no spaces between words."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tests.unit.export.tiny import tiny_model
from tf_dpce.config import TextConfig
from tf_dpce.export.operations import SERVING, check_operations, read_meta_graph
from tf_dpce.export.publish import write_archive
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import characters_of
from tf_dpce.preprocessing.words import plain_characters, plain_words

CAPTIONS = [
    "一只黑狗在草地上奔跑。",
    "两只dogs，3只cats!",
    "雪の上を走る茶色のコーヒー犬",
    "สุนัขวิ่งบนหญ้า",
    "a dog's naïve friend",
    "ハ\u3099スケット",  # a mark behind its letter, which are one character
]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_each_character_is_a_token_and_words_of_other_scripts_stay_whole(caption):
    # The plain reference, by which a query is looked through without TensorFlow.
    tokens = [part for word in plain_words(caption) for part in plain_characters(word)]
    assert characters_of([caption]) == list(dict.fromkeys(tokens))


def test_a_run_finds_captions_that_share_characters():
    # What `prepare` calls words of such captions are whole sentences.
    words = ["一只狗", "一只猫", "dog"]
    text = TextConfig(tokenizer="characters", max_length=5)
    tokenizer = CaptionTokenizer.of_run(words, text, lowercase=True)
    assert tokenizer.words == ("一", "只", "狗", "猫", "dog")
    ids = tokenizer(tf.constant(["两只狗和DOG", "马"])).numpy().tolist()
    assert ids == [[2, 3, 5, 0, 0], [0, 0, 0, 0, 0]]
    plain = CaptionTokenizer.of_run(words, TextConfig(max_length=5), lowercase=True)
    assert plain.words == tuple(words)


def test_every_server_links_its_operations(tmp_path):
    tokenizer = CaptionTokenizer(list("一只狗猫两在跑草地上"), 6, True, kind="characters")
    write_archive(ServingModule(tiny_model(), tokenizer), tmp_path)
    for serving in SERVING:
        check_operations(read_meta_graph(tmp_path), serving)
