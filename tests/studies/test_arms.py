"""The arms: what they change, and that nothing else differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tf_dpce.config import Config, from_dict, preset_names, preset_values
from tf_dpce.errors import UserError
from tf_dpce.studies.arms import STUDIES, Question, trained_stages, with_epochs
from tf_dpce.studies.size import text_parameters
from tf_dpce.training.assembly import text_tower_of


def configs(study: str, preset: str | None = None, **given: Any) -> dict[str, Config]:
    question = Question(study, preset, **{"vectors": "words.npz", **given})
    return {arm.name: question.config(arm) for arm in question.arms()}


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("study", [study for study in STUDIES if study != "text_tower"])
def test_every_arm_is_a_run_of_every_preset(study: str, preset: str):
    for config in configs(study, preset).values():
        assert 1 in trained_stages(config)


@pytest.mark.parametrize("preset", ["flickr8k_small", "flickr8k", "scenes"])
def test_the_towers_are_of_equal_size(preset: str):
    arms = configs("text_tower", preset)
    assert list(arms) == ["convolutional", "recurrent", "bag_of_words"]
    assert [config.text.tower for config in arms.values()] == list(arms)
    sizes = [text_parameters(text_tower_of(config, vocabulary_size=9)) for config in arms.values()]
    assert sizes[1:] == pytest.approx([sizes[0]] * 2, rel=0.03)
    # All else is the same.
    text = arms["convolutional"].text
    assert {replace(config, text=text) for config in arms.values()} == {arms["convolutional"]}


def test_words_are_not_counted():
    config = from_dict(preset_values("flickr8k_small"))
    few, many = (text_parameters(text_tower_of(config, count)) for count in (1, 50))
    assert few == many


def test_one_objective_fills_each_stage_of_the_preset_and_two_fill_one_each():
    small, both = configs("objective"), configs("objective", "flickr8k")
    assert trained_stages(small["ranking"]) == (1,)
    assert trained_stages(both["ranking"]) == (1, 2)
    assert both["ranking"].stage1.loss == both["ranking"].stage2.loss
    for arms in (small, both):
        config = arms["instance_then_ranking"]
        assert trained_stages(config) == (1, 2)
        assert config.stage1.loss.image_instance == 1 and not config.stage1.loss.pair
        assert config.stage2.loss.pair == 1 and not config.stage2.loss.image_instance
    # The second stage of a preset with one is the first again, but for the loss.
    config = small["instance_then_ranking"]
    assert replace(config.stage2, loss=config.stage1.loss) == config.stage1


def test_ranking_by_the_hardest_of_the_batch_and_by_those_given():
    arms = configs("objective")
    negatives = {name: arms[name].stage1.loss.negatives for name in ("ranking", "ranking_given")}
    assert negatives == {"ranking": "batch", "ranking_given": "given"}
    assert arms["ranking_given"].stage1.loss.lends_negatives


def test_each_part_differs_from_the_first_in_one_thing():
    arms = configs("parts")
    first = arms["frozen"]
    assert (first.image.backbone, first.image.input_size) == ("MobileNetV2", 96)
    assert (first.stage1.trunk, first.text.shift, first.vectors) == ("cached", False, None)
    trained = replace(first.stage1, trunk="trained", trunk_multiplier=0.3)
    assert arms["end_to_end"] == replace(first, stage1=trained)
    assert arms["word_vectors"] == replace(first, vectors="words.npz")
    assert arms["position_shift"] == replace(first, text=replace(first.text, shift=True))


def test_a_preset_that_is_named_keeps_its_own_image_tower():
    assert configs("parts", "flickr30k")["frozen"].image.backbone == "ResNet50"


def test_what_the_user_gives_goes_to_every_arm():
    for config in configs("objective", weights="trunk.h5", seed=3).values():
        assert (config.weights, config.vectors, config.seed) == ("trunk.h5", "words.npz", 3)


def test_schedules_are_stretched_with_the_epochs():
    base = from_dict(preset_values("flickr30k"))
    longer = with_epochs(base, {1: 24, 2: 30})
    assert (longer.stage1.epochs, longer.stage2.epochs) == (24, 30)
    # The recipe's second stage has 60 epochs and a tenth of the rate from the 41st on.
    assert base.stage2.decay_epochs == (40,) and longer.stage2.decay_epochs == (20,)
    # Ten validations over both stages: one each 5 of 24 epochs, one each 6 of 30.
    assert (longer.stage1.validate_every, longer.stage2.validate_every) == (5, 6)
    small = with_epochs(from_dict(preset_values("flickr8k_small")), {1: 1})
    # 1 of 20 epochs becomes a twentieth of one.
    assert small.stage1.warmup_epochs == pytest.approx(0.05)
    assert small.stage1.validate_every == 1


def test_an_unknown_study_is_the_users_mistake():
    with pytest.raises(UserError, match="unknown study towers: one of text_tower, objective"):
        Question("towers").arms()


def test_an_arm_that_needs_word_vectors_says_so():
    with pytest.raises(UserError, match="parts needs --vectors FILE, .* its arm word_vectors"):
        Question("parts").arms()
