"""The variants: what they change, and that nothing else differs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any

import pytest

from tf_dpce.ablations.variants import QUESTIONS, Question, text_parameters, trained_stages
from tf_dpce.config import Config, LossConfig
from tf_dpce.losses import ContrastiveLoss
from tf_dpce.models.build import text_tower_of
from tf_dpce.training.objective import loss_weights, stage_losses


@cache
def configs(question: str, **given: Any) -> dict[str, Config]:
    return Question(question, **{"vectors": "words.npz", **given}).variants()


def test_every_variant_is_a_run_with_what_the_user_gives():
    for question in QUESTIONS:
        for config in configs(question, weights="backbone.h5", seed=3, epochs=30).values():
            assert sum(config.stage(number).epochs for number in (1, 2)) == 30
            assert (config.weights, config.seed) == ("backbone.h5", 3)


@pytest.mark.full
def test_the_towers_are_of_equal_size():
    variants = configs("text_tower")
    assert list(variants) == ["convolutional", "recurrent", "bag_of_words"]
    assert [config.text.tower for config in variants.values()] == list(variants)
    # Without word vectors.
    sizes = [text_parameters(text_tower_of(config, 9)) for config in variants.values()]
    assert sizes[0] == text_parameters(text_tower_of(variants["convolutional"], 50))
    assert sizes[1:] == pytest.approx([sizes[0]] * 2, rel=0.03)
    # All else is the same.
    text = variants["convolutional"].text
    same = [replace(config, text=text) for config in variants.values()]
    assert same == [variants["convolutional"]] * 3


# The losses of `objective` by name: weights of the outputs, and the kind of the pair loss.
OBJECTIVES = {
    "instance": ({"image_logits": 1.0, "text_logits": 1.0}, None),
    "ranking": ({"pair": 1.0}, "paired"),
    "ranking_hardest": ({"pair": 1.0}, "batch"),
    "both": ({"image_logits": 1.0, "text_logits": 1.0, "pair": 1.0}, "paired"),
    "recipe": ({"image_logits": 1.0, "text_logits": 0.1, "pair": 2.0}, "mined"),
    "softmax": ({"pair": 1.0}, "softmax"),
    "softmax_and_instance": ({"image_logits": 0.2, "text_logits": 0.2, "pair": 1.0}, "softmax"),
}


def objective(loss: LossConfig) -> tuple[dict[str, float], str | None]:
    losses, weights = stage_losses(loss), loss_weights(loss)
    if "pair" not in losses:
        return weights, None
    if isinstance(losses["pair"], ContrastiveLoss):
        return weights, "softmax"
    assert losses["pair"].margin == 1
    if loss.mines_negatives:
        assert loss.candidates == 256
        return weights, "mined"
    return weights, "batch" if losses["pair"].negatives == "batch" else "paired"


def test_a_variant_trains_the_losses_that_its_name_says():
    for name, config in configs("objective").items():
        losses = [objective(config.stage(number).loss) for number in trained_stages(config)]
        assert losses == [OBJECTIVES[said] for said in name.split("_then_")], name


def test_every_loss_is_there_alone_and_as_the_start_of_the_others():
    variants = configs("objective")
    pairs = permutations(("instance", "ranking", "softmax"), 2)
    chains = {f"{first}_then_{second}" for first, second in pairs}
    assert ({*OBJECTIVES} - {"recipe"}) | chains < variants.keys()
    for name in chains:
        # Stages of a chain share the epochs and differ in the loss alone.
        config = variants[name]
        assert replace(config.stage2, loss=config.stage1.loss) == config.stage1


def test_each_part_differs_from_the_first_in_one_thing():
    variants = configs("parts")
    first = variants["frozen"]
    assert (first.image.backbone, first.image.input_size) == ("MobileNetV2", 96)
    assert (first.stage1.backbone, first.text.shift, first.vectors) == ("cached", False, None)
    trained = replace(first, stage1=replace(first.stage1, backbone="trained"))
    assert variants["end_to_end"] == trained
    assert variants["word_vectors"] == replace(first, vectors=("words.npz",))
    assert variants["position_shift"] == replace(first, text=replace(first.text, shift=True))


def test_schedules_are_stretched_with_the_epochs():
    chain = configs("objective", epochs=150)["instance_then_ranking"]
    assert (chain.stage1.epochs, chain.stage2.epochs) == (75, 75)
    assert chain.stage1.validate_every == 15
    small = configs("transfer", epochs=1)["from"]
    # 1 of 20 epochs becomes a twentieth of one.
    assert small.stage1.warmup_epochs == pytest.approx(0.05)
    assert small.stage1.validate_every == 1
