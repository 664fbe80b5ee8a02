"""The configuration: typed, the same in files and in memory, strict about keys and types."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from pipelines._configuration import add_configuration, configuration
from tests.errors import raises
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


def leaves(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        nested = isinstance(item, dict) and key != "lr_multipliers"
        flat |= leaves(item, f"{prefix}{key}.") if nested else {f"{prefix}{key}": item}
    return flat


def test_what_is_not_named_keeps_its_default():
    assert from_dict({}) == Config()
    config = from_dict({"seed": 3, "stage2": {"epochs": 2, "loss": {"margin": 0.5}}})
    assert config.seed == 3 and config.stage1 == StageConfig()
    assert config.stage2 == StageConfig(epochs=2, loss=LossConfig(margin=0.5))
    config = from_dict({"text": {"blocks": [1, 2], "widths": [8, 16]}})
    assert config.text.blocks == (1, 2), "or two runs of one configuration would differ"


def test_every_preset_loads_and_survives_a_round_trip(project_root):
    files = {path.stem for path in (project_root / "tf_dpce" / "presets").glob("*.yaml")}
    assert set(preset_names()) == files and "flickr8k" in files
    stretched = set()
    for name in files:
        values = preset_values(name)
        config = from_dict(values)
        assert from_dict(to_dict(config)) == config
        # What the file says is what the configuration holds.
        held = leaves(to_dict(config))
        for key, value in leaves(values).items():
            assert held[key] == value, (name, key)
        assert config.stage1.epochs + config.stage2.epochs > 0
        stretched |= {name} if config.image.resize == "stretch" else set()
    # The tall images of persons alone.
    assert stretched == {"cuhk_pedes", "cuhk_pedes_vgg16"}
    with raises("config.preset"):
        preset_values("flickr9k")


# The recipe, line by line. Backbone, width of the head's hidden layer, token positions; dropout
# and bias of the classifier; batch and epochs of stage 1; epochs of stage 2 and those at which its
# rate falls; the weight of the captions' instance loss and the kind of negatives.
PAPER = {
    "flickr30k": ("ResNet50", 2048, 32, 0.75, True, 32, 240, 60, (40,), 0.1, "mined"),
    "flickr30k_vgg19": ("VGG19", 4096, 32, 0.75, False, 32, 240, 60, (40,), 0.1, "mined"),
    "flickr30k_resnet152": ("ResNet152", 2048, 32, 0.75, True, 32, 240, 80, (40,), 0.1, "mined"),
    "mscoco": ("ResNet50", 2048, 32, 0.5, False, 32, 90, 21, (15, 20), 0.1, "mined"),
    "mscoco_vgg19": ("VGG19", 4096, 32, 0.5, False, 32, 70, 20, (15,), 0.1, "mined"),
    "mscoco_resnet152": ("ResNet152", 2048, 32, 0.5, False, 24, 90, 21, (15, 20), 0.1, "mined"),
    "cuhk_pedes": ("ResNet50", 2048, 56, 0.8, True, 32, 180, 61, (40,), 0.5, "paired"),
    "cuhk_pedes_vgg16": ("VGG16", 2048, 56, 0.8, True, 32, 150, 60, (40,), 0.5, "paired"),
}


def test_the_papers_presets_are_the_recipe():
    sets = ("flickr30k", "mscoco", "cuhk_pedes")
    assert {name for name in preset_names() if name.startswith(sets)} == set(PAPER)
    for name, settings in PAPER.items():
        backbone, head, positions, dropout, bias, batch, first, second, falls, text, negatives = (
            settings
        )
        config = from_dict(preset_values(name))
        persons = name.startswith("cuhk")
        assert config.image == ImageConfig(
            backbone, 224, head, "stretch" if persons else "center_crop", crop=True, flip=True
        )
        assert config.text == TextConfig(
            tower="convolutional",
            max_length=positions,
            word_dim=300,
            blocks=(3, 4, 6, 1),
            widths=(256, 512, 1024, 2048),
            shift=True,
            caption_pool="instance" if persons else "image",
        )
        assert config.model == ModelConfig(
            2048, dropout, 0.0, "shared" if bias else "none", relu_before_losses=True
        )
        # All stages: SGD in steps, 1e-4 of decay; test_paper_presets.py has the rates.
        common = dict(
            batch_size=batch,
            optimizer="sgd",
            learning_rate=0.01,
            schedule="steps",
            weight_decay=1e-4,
        )
        stage1, stage2 = (replace(config.stage(n), lr_multipliers={}) for n in (1, 2))
        assert stage1 == StageConfig(
            first, backbone="frozen", loss=LossConfig(1.0, 1.0, pair=0.0), **common
        )
        # Both instance losses go on in stage 2, beside twice the ranking loss with a margin of 1.
        loss = LossConfig(1.0, text, 2.0, "ranking", negatives, candidates=256, margin=1.0)
        assert stage2 == StageConfig(
            second, backbone="trained", decay_epochs=falls, loss=loss, **common
        )


REFUSED = [
    ("config.unknown_key", "sed", {"sed": 1}),
    ("config.unknown_key", "stage1.epoch", {"stage1": {"epoch": 1}}),
    ("config.unknown_key", "stage1.loss.marginn", {"stage1": {"loss": {"marginn": 1.0}}}),
    ("config.unknown_key", "stage1.epochs", {"stage1.epochs": 1}),
    # A key of an earlier version.
    ("config.unknown_key", "model.members", {"model": {"members": 2}}),
    ("config.value", "seed", {"seed": "many"}),
    ("config.value", "seed", {"seed": -1}),
    ("config.value", "image.flip", {"image": {"flip": "sometimes"}}),
    ("config.value", "text.blocks", {"text": {"blocks": [3, 0, 6, 1]}}),
    ("config.value", "text.widths", {"text": {"widths": [256, 512, 1024, 2]}}),
    ("config.value", "model.tower_dropout", {"model": {"tower_dropout": 1.0}}),
    ("config.value", "stage1", {"stage1": 3}),
    ("config.value", "stage1.batch_size", {"stage1": {"batch_size": 0}}),
    ("config.value", "stage2.learning_rate", {"stage2": {"learning_rate": float("nan")}}),
    ("config.value", "stage1.decay_epochs", {"stage1": {"decay_epochs": [2, -4]}}),
    ("config.value", "stage2.lr_multipliers", {"stage2": {"lr_multipliers": {"*/bias": -1.0}}}),
    ("config.value", "stage2.lr_multipliers", {"stage2": {"lr_multipliers": 0.1}}),
    ("config.value", "stage2.loss.temperature", {"stage2": {"loss": {"temperature": 0.0}}}),
    ("config.value", "stage2.loss.negatives", {"stage2": {"loss": {"negatives": "given"}}}),
]


def test_what_no_run_can_use_is_refused_by_its_key():
    for code, key, values in REFUSED:
        with raises(code) as caught:
            from_dict(values)
        assert key in str(caught.value), values


def test_every_number_has_a_range():
    # A plain int or float would take any.
    for kind in (Config, ImageConfig, TextConfig, ModelConfig, LossConfig, StageConfig):
        for item in dataclasses.fields(kind):
            assert not {"int", "float"} & set(re.findall(r"\w+", item.type)), item.name


def test_settings_that_need_one_another():
    for text in ({"blocks": [1, 1], "widths": [8]}, {"blocks": [], "widths": []}):
        with raises("config.widths"):
            from_dict({"text": text})
    # A bag of words has no blocks.
    text = {"tower": "bag_of_words", "blocks": [1, 1], "widths": [8]}
    assert from_dict({"text": text}).text.widths == (8,)
    loss = {"image_instance": 0, "text_instance": 0, "pair": 0}
    with raises("config.no_loss"):
        from_dict({"stage2": {"loss": loss}})
    assert from_dict({"stage2": {"loss": loss | {"pair": 1}}}).stage(2).loss.pair == 1


def test_turned_copies_need_a_loss_without_classes_and_images():
    text = {"opposites": [["left", "right"]]}
    loss = {"image_instance": 0, "text_instance": 0, "pair": 1, "pair_loss": "contrastive"}
    stage = {"epochs": 1, "loss": loss}
    assert from_dict({"text": text, "stage1": stage}).text.opposites == (("left", "right"),)
    for change in (
        {"backbone": "cached"},
        {"loss": loss | {"image_instance": 1}},
        {"loss": loss | {"text_instance": 1}},
        {"loss": loss | {"pair_loss": "ranking"}},
    ):
        with raises("config.opposites"):
            from_dict({"text": text, "stage1": stage | change})
    # Two opposites of "left" would not turn back into it.
    with raises("config.opposites"):
        from_dict({"text": {"opposites": [["left", "right"], ["left", "east"]]}})


def test_numbers_as_yaml_writes_them():
    # YAML 1.1 reads 1e-4 as a string and 1 as an integer; both are fine where a float belongs.
    values = yaml.safe_load("stage1: {learning_rate: 1e-4, weight_decay: 1}")
    stage = from_dict(values).stage1
    assert (stage.learning_rate, stage.weight_decay) == (1e-4, 1.0)


def test_files_of_word_vectors_follow_one_another_and_an_old_run_names_one():
    parser = ArgumentParser(exit_on_error=False)
    add_configuration(parser, argv=[])
    for files in (["a.txt"], ["a.txt", "b.npz"]):
        found = configuration(parser.parse_args(["--vectors", *files, "--seed", "3"]))
        assert found == Config(seed=3, vectors=tuple(files))
    assert configuration(parser.parse_args([])) == Config()
    assert from_dict({"vectors": "a.txt"}) == Config(vectors=("a.txt",))


def test_one_multiplier_is_changed_on_the_command_line_and_a_new_one_comes_last():
    argv = ["--preset", "flickr30k", "--stage2.lr_multipliers.image_backbone/*=0.5"]
    argv += ["--stage2.lr_multipliers.text_tower/text_fc/*", "0.7"]
    parser = ArgumentParser(exit_on_error=False)
    add_configuration(parser, argv)
    found = configuration(parser.parse_args(argv)).stage2.lr_multipliers
    preset = from_dict(preset_values("flickr30k")).stage2.lr_multipliers
    expected = {**preset, "image_backbone/*": 0.5, "text_tower/text_fc/*": 0.7}
    assert list(found.items()) == list(expected.items())


def test_prefixes_are_shorter_than_the_embedding_and_have_a_pair_loss():
    loss = {"pair": 1.0, "prefixes": [256, 128]}
    assert from_dict({"stage1": {"loss": loss}}).stage1.loss.prefixes == (256, 128)
    for wrong in ({"prefixes": [2048]}, {"prefixes": [64, 64]}, {"pair": 0.0}):
        with raises("config.prefixes"):
            from_dict({"stage1": {"loss": loss | wrong}})


def test_a_teacher_has_a_weight_and_embeddings_of_all_pairs():
    assert not Config().stage(1).loss.distillation
    found = from_dict({"teacher": "t.npz", "stage2": {"loss": {"distillation": 0.3}}})
    assert [found.stage(number).loss.distillation for number in (1, 2)] == [1.0, 0.3]
    alone = {"image_instance": 0, "text_instance": 0}
    from_dict({"teacher": "t.npz", "stage1": {"loss": alone}, "stage2": {"loss": alone}})
    mined = {"pair": 1, "negatives": "mined"}
    softmax = alone | {"pair": 1, "pair_loss": "contrastive"}
    opposites = {"opposites": [["left", "right"]]}
    for wrong in (
        {"stage1": {"loss": {"distillation": 0.3}}},
        {"teacher": "t.npz", "stage2": {"epochs": 1, "loss": mined}},
        {"teacher": "t.npz", "stage2": {"epochs": 1, "loss": softmax}, "text": opposites},
    ):
        with raises("config.teacher"):
            from_dict(wrong)
    # Of a stage that is left out, and of one that does not learn from it.
    for fine in ({"loss": mined}, {"epochs": 1, "loss": mined | {"distillation": 0}}):
        from_dict({"teacher": "t.npz", "stage2": fine})


def test_an_unknown_tokenizer_is_refused():
    with raises("config.value"):
        from_dict({"text": {"tokenizer": "syllables"}})
