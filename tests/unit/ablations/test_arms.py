"""The arms: what they change, and that nothing else differs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.ablations.arms import STUDIES, Question, trained_stages, with_epochs
from tf_dpce.ablations.size import text_parameters
from tf_dpce.config import Config, LossConfig, from_dict, preset_names, preset_values
from tf_dpce.errors import UserError
from tf_dpce.losses import ContrastiveLoss
from tf_dpce.training.assembly import build_model, stage_losses, text_tower_of
from tf_dpce.training.caption_table import CaptionTable
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.network import stage_trainer, supervised


@cache
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


# What each loss of `objective` is, by its name: weights of the network's outputs, and of what the
# pair loss is made.
OBJECTIVES = {
    "instance": ({"image_logits": 1.0, "text_logits": 1.0}, None),
    "ranking": ({"pair": 1.0}, "given"),
    "ranking_hardest": ({"pair": 1.0}, "batch"),
    "both": ({"image_logits": 1.0, "text_logits": 1.0, "pair": 1.0}, "given"),
    "recipe": ({"image_logits": 1.0, "text_logits": 0.1, "pair": 2.0}, "mined"),
    "softmax": ({"pair": 1.0}, "softmax"),
    "softmax_and_instance": ({"image_logits": 0.2, "text_logits": 0.2, "pair": 1.0}, "softmax"),
}


def objective(loss: LossConfig) -> tuple[dict[str, float], str | None]:
    """What a stage trains, told by the losses that it makes of its settings."""
    losses, weights = stage_losses(loss)
    if "pair" not in losses:
        return weights, None
    if isinstance(losses["pair"], ContrastiveLoss):
        return weights, "softmax"
    assert losses["pair"].margin == 1 and loss.candidates == 256
    return weights, "mined" if loss.mines_negatives else losses["pair"].negatives


@pytest.mark.parametrize("preset", [None, "flickr8k", "flickr30k"])
def test_an_arm_trains_the_losses_that_its_name_says(preset: str | None):
    arms = configs("objective", preset)
    for name, config in arms.items():
        said = name.split("_then_")
        stages = trained_stages(config)
        # A preset of two stages trains one loss in both.
        assert len(stages) == len(said) or (len(said), stages) == (1, (1, 2))
        for place, number in enumerate(stages):
            expected = OBJECTIVES[said[min(place, len(said) - 1)]]
            assert objective(config.stage(number).loss) == expected, (name, number)


def test_every_loss_is_there_alone_and_as_the_start_of_the_others():
    arms = set(configs("objective"))
    assert {*OBJECTIVES} - {"recipe"} < arms
    pairs = permutations(("instance", "ranking", "softmax"), 2)
    assert {f"{first}_then_{second}" for first, second in pairs} < arms
    assert {"instance_then_both", "instance_then_recipe"} < arms


def test_the_recipes_second_stage_is_that_of_the_paper():
    ours = configs("objective")["instance_then_recipe"].stage2.loss
    assert ours == replace(from_dict(preset_values("flickr30k")).stage2.loss, temperature=0.05)


def test_stages_of_a_chain_differ_in_nothing_but_the_loss():
    for name, config in configs("objective").items():
        if "_then_" in name:
            assert replace(config.stage2, loss=config.stage1.loss) == config.stage1


def tiny(config: Config) -> Config:
    image = replace(config.image, backbone="small", input_size=32, head_dim=0)
    text = replace(config.text, max_length=6, embedding_dim=4, blocks=(1,), widths=(8,))
    return replace(config, image=image, text=text, model=replace(config.model, output_dim=8))


@pytest.mark.parametrize("name", ["softmax_then_ranking", "instance_then_recipe"])
def test_the_network_of_a_stage_mines_and_moves_its_classifier_only_where_it_says(name: str):
    config = tiny(configs("objective")[name])
    model = build_model(config, vocabulary_size=9, num_instances=12)
    captions = CaptionTable(np.ones((12, 6), np.int32), np.arange(13), np.arange(12))
    for number, part in zip((1, 2), name.split("_then_"), strict=True):
        loss = config.stage(number).loss
        negatives = HardNegatives(captions, 4, False, 0) if loss.mines_negatives else None
        network = stage_trainer(config.stage(number), model, 3, negatives)
        batch = {
            "image": np.zeros((4, 32, 32, 3), np.uint8),
            "text": np.ones((4, 6), np.int32),
            "instance": np.arange(4),
        }
        inputs, targets = supervised(loss, batch)
        before = [variable.numpy() for variable in model.classifier.variables]
        batches = tf.data.Dataset.from_tensors((inputs, targets))
        network.fit(batches, shuffle=False, verbose=0)
        after = [variable.numpy() for variable in model.classifier.variables]
        moved = any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
        assert set(targets) == set(OBJECTIVES[part][0])
        assert (network.hard_negatives is not None) == (part == "recipe")
        assert moved == model.classifier.trainable == (part in ("instance", "recipe"))


def test_each_part_differs_from_the_first_in_one_thing():
    arms = configs("parts")
    first = arms["frozen"]
    assert (first.image.backbone, first.image.input_size) == ("MobileNetV2", 96)
    assert (first.stage1.backbone, first.text.shift, first.vectors) == ("cached", False, None)
    assert arms["end_to_end"] == replace(first, stage1=replace(first.stage1, backbone="trained"))
    assert arms["end_to_end"].stage1.backbone_multiplier == 0.3
    assert arms["word_vectors"] == replace(first, vectors="words.npz")
    assert arms["position_shift"] == replace(first, text=replace(first.text, shift=True))


@pytest.mark.parametrize("preset", [p for p in preset_names() if p != "flickr8k_small"])
def test_parts_of_a_preset_keep_its_own_rate_of_the_backbone(preset: str):
    base, arms = from_dict(preset_values(preset)), configs("parts", preset)
    first, trained = arms["frozen"], arms["end_to_end"]
    for config in arms.values():
        assert trained_stages(config) == trained_stages(base)
        assert replace(config, vectors=None, text=base.text, stage1=base.stage1) == replace(
            base, stage2=config.stage2
        )
    last = base.stage(trained_stages(base)[-1])
    for number in trained_stages(base):
        # Frozen from the first step to the last, and trained so too: at the rate, and from the
        # layer on, that the preset's own stage has which trains the backbone.
        own = base.stage(number)
        assert first.stage(number) == replace(own, backbone="cached")
        assert trained.stage(number) == replace(
            own,
            backbone="trained",
            backbone_multiplier=last.backbone_multiplier,
            backbone_from=last.backbone_from,
        )
        assert arms["word_vectors"].stage(number) == first.stage(number)
        assert arms["position_shift"].stage(number) == first.stage(number)
    assert not first.text.shift and arms["position_shift"].text.shift
    assert (first.vectors, arms["word_vectors"].vectors) == (None, "words.npz")


@pytest.mark.parametrize(
    ("preset", "rate"), [("flickr30k", 0.2), ("flickr30k_vgg19", 0.01), ("cuhk_pedes_vgg16", 0.01)]
)
def test_the_papers_backbone_is_trained_at_the_papers_rate(preset: str, rate: float):
    config = configs("parts", preset)["end_to_end"]
    assert [config.stage(number).backbone_multiplier for number in (1, 2)] == [rate, rate]


def test_a_preset_that_is_named_keeps_its_own_image_tower():
    assert configs("parts", "flickr30k")["frozen"].image.backbone == "ResNet50"


def test_what_the_user_gives_goes_to_every_arm():
    for config in configs("objective", weights="backbone.h5", seed=3).values():
        assert (config.weights, config.vectors, config.seed) == ("backbone.h5", "words.npz", 3)


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
