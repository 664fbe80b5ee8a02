"""What TensorBoard says of a run: its configuration, its data, its hyperparameters."""

from __future__ import annotations

from pathlib import Path

from tensorboard.plugins.hparams.metadata import (
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from tf_dpce.config import from_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.monitoring.description import describe, table


def test_every_key_is_a_hyperparameter_and_a_row(scenes: Path):
    stage = {"learning_rate": 0.5, "decay_epochs": [1, 2], "lr_multipliers": {"*/bias": 2.0}}
    config = from_dict({"seed": 7, "stage2": stage | {"loss": {"margin": 0.25}}})
    values = [v for s in describe(config, Manifest.load(scenes), "mine", 2) for v in s.value]
    texts = {v.tag: v.tensor.string_val[0].decode() for v in values if v.tensor.string_val}
    for row in ("| stage2.loss.margin | `0.25` |", "| vectors | `none` |", "| stage | `2` |"):
        assert row in texts["configuration"].splitlines()
    assert "| train.images | `48` |" in texts["data"].splitlines()
    assert Manifest.load(scenes).split_digest in texts["data"]
    (content,) = [v.metadata.plugin_data.content for v in values if v.tag == SESSION_START_INFO_TAG]
    start = parse_session_start_info_plugin_data(content)
    numbers = {name: value.number_value for name, value in start.hparams.items()}
    assert (numbers["stage2.learning_rate"], numbers["seed"], numbers["stage"]) == (0.5, 7, 2)
    assert start.hparams["stage2.decay_epochs"].string_value == "[1, 2]"
    assert start.hparams["stage2.lr_multipliers"].string_value == '{"*/bias": 2.0}'
    assert start.hparams["image.crop"].bool_value is True
    assert start.group_name.startswith("mine stage 2, ")


def test_values_are_no_markup():
    text = table({"weights": "a|b`<script>\n# x", "long": "x" * 999})
    assert len(text.splitlines()) == 4 and "x" * 301 not in text
    assert text.splitlines()[2] == r"| weights | `a¦b'<script>\n# x` |"
