"""The configuration: typed, the same in files and in memory, strict about keys and types."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml

from tf_dpce.config import (
    Config,
    ImageConfig,
    LossConfig,
    ModelConfig,
    StageConfig,
    TextConfig,
    from_dict,
    preset_names,
    preset_values,
    to_dict,
)
from tf_dpce.config.checks import ALLOWED
from tf_dpce.errors import UserError


def leaves(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        nested = isinstance(item, dict)
        flat |= leaves(item, f"{prefix}{key}.") if nested else {f"{prefix}{key}": item}
    return flat


def test_nothing_said_gives_the_defaults():
    assert from_dict({}) == Config()


def test_what_is_not_named_keeps_its_default():
    config = from_dict({"seed": 3, "stage2": {"epochs": 2, "loss": {"margin": 0.5}}})
    assert config.seed == 3 and config.stage1 == StageConfig()
    assert config.stage2 == StageConfig(epochs=2, loss=LossConfig(margin=0.5))


def test_a_round_trip_through_json_changes_nothing():
    config = from_dict(
        {
            "seed": 4,
            "vectors": "glove.npz",
            "text": {"blocks": [1, 2], "widths": [8, 16], "shift": False},
            "stage1": {"decay_epochs": [3, 5], "optimizer": "adamw", "backbone": "cached"},
            "stage2": {"loss": {"pair_loss": "contrastive", "pair": 1.0}},
        }
    )
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert again.text.blocks == (1, 2) and isinstance(again.stage1.decay_epochs, tuple)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name: str):
    values = preset_values(name)
    config = from_dict(values)
    assert from_dict(to_dict(config)) == config
    # What the file says is what the configuration holds.
    held = leaves(to_dict(config))
    for key, value in leaves(values).items():
        assert held[key] == value, key
    assert config.stage1.epochs + config.stage2.epochs > 0
    assert len(config.text.blocks) == len(config.text.widths) or (
        config.text.tower == "bag_of_words"
    )


def test_only_the_tall_images_of_persons_are_squashed():
    squashed = {name for name in preset_names() if from_dict(preset_values(name)).image.squash}
    assert squashed == {"cuhk_pedes", "cuhk_pedes_vgg16"}


def test_the_presets_are_those_of_the_folder(project_root):
    files = {path.stem for path in (project_root / "tf_dpce" / "presets").glob("*.yaml")}
    assert set(preset_names()) == files and "flickr8k" in files


# The recipe, line by line. Backbone, width of the head's hidden layer, places of a caption; dropout
# and bias of the classifier; batch and epochs of stage 1; epochs of stage 2 and those at which its
# rate falls; the weight of the sentences' instance loss and where its negatives come from.
PAPER = {
    "flickr30k": ("ResNet50", 2048, 32, 0.75, True, 32, 240, 60, (40,), 0.1, "mined"),
    "flickr30k_vgg19": ("VGG19", 4096, 32, 0.75, False, 32, 240, 60, (40,), 0.1, "mined"),
    "flickr30k_resnet152": ("ResNet152", 2048, 32, 0.75, True, 32, 240, 80, (40,), 0.1, "mined"),
    "mscoco": ("ResNet50", 2048, 32, 0.5, False, 32, 90, 21, (15, 20), 0.1, "mined"),
    "mscoco_vgg19": ("VGG19", 4096, 32, 0.5, False, 32, 70, 20, (15,), 0.1, "mined"),
    "mscoco_resnet152": ("ResNet152", 2048, 32, 0.5, False, 24, 90, 21, (15, 20), 0.1, "mined"),
    "cuhk_pedes": ("ResNet50", 2048, 56, 0.8, True, 32, 180, 61, (40,), 0.5, "given"),
    "cuhk_pedes_vgg16": ("VGG16", 2048, 56, 0.8, True, 32, 150, 60, (40,), 0.5, "given"),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_are_the_recipe(name: str):
    backbone, head, places, dropout, bias, batch, first, second, falls, text, negatives = PAPER[
        name
    ]
    config = from_dict(preset_values(name))
    squash = name.startswith("cuhk")
    assert config.image == ImageConfig(backbone, 224, head, squash, crop=True, flip=True)
    assert config.text == TextConfig(
        *("convolutional", places, 300, (3, 4, 6, 1), (256, 512, 1024, 2048)),
        shift=True,
        captions_of="instance" if squash else "image",
    )
    assert config.model == ModelConfig(2048, dropout, 0.0, bias, rectify=True)
    # All stages: SGD in steps, 1e-4 of decay. Section 5 gives effective rates: 0.01 for
    # convolutions; 0.1, 0.2, 2 and 0.01 times that for classifier, its bias, gamma and words.
    common = dict(
        batch_size=batch,
        optimizer="sgd",
        learning_rate=0.01,
        schedule="steps",
        weight_decay=1e-4,
        word_multiplier=0.01,
        classifier_multiplier=0.1,
        classifier_bias_multiplier=0.2,
        gamma_multiplier=2.0,
    )
    assert config.stage1 == StageConfig(
        first, backbone="frozen", loss=LossConfig(1.0, 1.0, pair=0.0), **common
    )
    # Both instance losses go on in stage 2, beside twice the ranking loss with a margin of 1.
    loss = LossConfig(1.0, text, 2.0, "ranking", negatives, candidates=256, margin=1.0)
    # The backbone: filters, then what differs from them; its first filters 0.00001.
    vgg = dict(backbone_multiplier=0.01, backbone_bias_multiplier=0.2)
    resnet = dict(backbone_multiplier=0.2, backbone_gamma_multiplier=0.01)
    backbone = dict(
        backbone="trained", backbone_first_multiplier=0.001, **(vgg if "vgg" in name else resnet)
    )
    assert config.stage2 == StageConfig(second, decay_epochs=falls, loss=loss, **backbone, **common)


def test_the_presets_of_the_papers_data_sets_are_all_checked():
    sets = ("flickr30k", "mscoco", "cuhk_pedes")
    assert {name for name in preset_names() if name.startswith(sets)} == set(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_have_the_effective_rates_of_the_recipe(name: str):
    config = from_dict(preset_values(name))
    for number in (1, 2):
        stage = config.stage(number)
        # Section 5 of the recipe: 0.1 times 0.1, 0.01, 0.02, 0.2 and 0.001.
        rates = {
            "convolution": stage.learning_rate,
            "classifier": stage.learning_rate * stage.classifier_multiplier,
            "bias": stage.learning_rate * stage.classifier_bias_multiplier,
            "gamma": stage.learning_rate * stage.gamma_multiplier,
            "word": stage.learning_rate * stage.word_multiplier,
        }
        assert rates == pytest.approx(
            {"convolution": 0.01, "classifier": 1e-3, "bias": 2e-3, "gamma": 0.02, "word": 1e-4}
        )
    # 0.1 times 0.001 and 0.02 of VGG, 0.02, 0.001 and 0.02 of ResNet; 0.0001 of the first filters.
    stage = config.stage2
    kinds = {
        "filters": stage.backbone_multiplier,
        "gamma": stage.backbone_gamma_multiplier,
        "bias": stage.backbone_bias_multiplier,
        "first": stage.backbone_first_multiplier,
    }
    kinds = {kind: stage.backbone_multiplier if m is None else m for kind, m in kinds.items()}
    expected = {"filters": 2e-3, "gamma": 1e-4, "bias": 2e-3, "first": 1e-5}
    if "vgg" in name:
        # It has no BatchNorm.
        expected |= {"filters": 1e-4, "gamma": 1e-4}
    rates = {kind: stage.learning_rate * multiplier for kind, multiplier in kinds.items()}
    assert rates == pytest.approx(expected)


def test_an_unknown_preset_is_the_users_mistake():
    with pytest.raises(UserError, match="unknown preset flickr9k: one of .*flickr8k"):
        preset_values("flickr9k")


@pytest.mark.parametrize(
    "values",
    [
        {"sed": 1},
        {"stage1": {"epoch": 1}},
        {"stage1": {"loss": {"marginn": 1.0}}},
        {"stage3": {"epochs": 1}},
        {"stage1.epochs": 1, "stage1.epoch": 1},
    ],
)
def test_unknown_keys_are_the_users_mistake(values: dict[str, Any]):
    with pytest.raises(UserError, match="^configuration: "):
        from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": "many"},
        {"seed": 1.5},
        {"seed": None},
        {"stage1": {"epochs": "two"}},
        {"stage1": {"epochs": [2]}},
        {"stage1": {"optimizer": "rmsprop"}},
        {"stage1": {"backbone": "thawed"}},
        {"stage1": 3},
        {"stage1": None},
        {"stage2": [1]},
        {"text": None},
        {"stage2": {"loss": 4}},
        {"text": {"blocks": "wide"}},
        {"text": {"blocks": [1, "two"]}},
        {"image": {"flip": "sometimes"}},
        {"stage2": {"loss": {"negatives": "hardest"}}},
    ],
)
def test_wrong_types_are_the_users_mistake(values: dict[str, Any]):
    with pytest.raises(UserError, match="^configuration: ") as caught:
        from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("seed", -1, "from 0 to 4294967295"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("checkpoint_minutes", -0.5, "0 or more"),
        ("image.input_size", 0, "1 or more"),
        ("text.blocks", [3, 0, 6, 1], "1 or more"),
        ("text.widths", [256, 512, 1024, 2], "4 or more"),
        ("model.dropout", 1.5, "from 0 to below 1"),
        ("model.tower_dropout", 1.0, "from 0 to below 1"),
        ("text.word_dropout", -0.1, "from 0 to below 1"),
        ("stage1.batch_size", 0, "1 or more"),
        ("stage1.validate_every", 0, "1 or more"),
        ("stage2.views", 0, "1 or more"),
        ("stage2.epochs", -1, "0 or more"),
        ("stage2.learning_rate", -0.1, "0 or more"),
        ("stage2.learning_rate", float("nan"), "0 or more"),
        ("stage2.learning_rate", float("inf"), "0 or more"),
        ("stage1.decay_epochs", [2, -4], "0 or more"),
        ("stage2.loss.pair", -2.0, "0 or more"),
        ("stage2.backbone_bias_multiplier", -1.0, "0 or more"),
        ("stage2.loss.temperature", 0.0, "above 0"),
    ],
)
def test_a_number_out_of_its_range_is_told_with_the_range(option: str, value: Any, allowed: str):
    values: Any = value
    for name in reversed(option.split(".")):
        values = {name: values}
    with pytest.raises(UserError) as caught:
        from_dict(values)
    assert str(caught.value) == f"configuration: {option} cannot be {value}: give {allowed}"


def test_every_number_has_a_range():
    numbers = {
        name.rpartition(".")[2]
        for name, value in leaves(to_dict(Config())).items()
        if isinstance(value, int | float | list) and not isinstance(value, bool)
    }
    unset = {f"backbone_{kind}_multiplier" for kind in ("bias", "gamma", "first")}
    assert numbers | unset == set(ALLOWED)


def test_every_group_of_blocks_has_a_width():
    with pytest.raises(UserError, match="text.blocks names 2 groups and text.widths 1: give one"):
        from_dict({"text": {"blocks": [1, 1], "widths": [8]}})
    with pytest.raises(UserError, match="text.blocks names 0 groups"):
        from_dict({"text": {"blocks": [], "widths": []}})
    # A bag of words has no blocks.
    text = {"tower": "bag_of_words", "blocks": [1, 1], "widths": [8]}
    assert from_dict({"text": text}).text.widths == (8,)


def test_a_stage_has_a_loss():
    loss = {"image_instance": 0, "text_instance": 0, "pair": 0}
    with pytest.raises(UserError, match="weights in stage2.loss are all 0: give image_instance"):
        from_dict({"stage2": {"loss": loss}})
    assert from_dict({"stage2": {"loss": loss | {"pair": 1}}}).stage(2).loss.pair == 1


def test_numbers_as_yaml_writes_them():
    # YAML 1.1 reads 1e-4 as a string and 1 as an integer; both are fine where a float belongs.
    values = yaml.safe_load("stage1: {learning_rate: 1e-4, weight_decay: 1}")
    stage = from_dict(values).stage1
    assert (stage.learning_rate, stage.weight_decay) == (1e-4, 1.0)


def test_members_share_an_embedding_evenly():
    remedy = "give --model.output_dim 1023"
    with pytest.raises(UserError, match=f"members 3 does not divide .* 1024: {remedy}"):
        from_dict({"model": {"members": 3, "output_dim": 1024}})
    with pytest.raises(UserError, match="convolutional, not recurrent: give --model.members 1"):
        from_dict({"text": {"tower": "recurrent"}, "model": {"members": 2}})
    assert from_dict({"model": {"members": 3, "output_dim": 1536}}).model.members == 3
