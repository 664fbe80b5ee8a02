"""docs/recipe.md and docs/benchmarks.md keep their word: commands are whole, keys exist."""

from __future__ import annotations

import re

import pytest

from tests.pages import text
from tf_dpce.config import (
    Config,
    ImageConfig,
    LossConfig,
    ModelConfig,
    TextConfig,
    preset_names,
    preset_values,
)

RECIPE = text("docs/recipe.md")
BENCHMARKS = text("docs/benchmarks.md").partition("## Zero-shot")[0]
COMMANDS = re.findall(r"^python -m pipelines\.(\w+) (.*)$", BENCHMARKS, re.MULTILINE)
SECTIONS = {"image": ImageConfig, "text": TextConfig, "model": ModelConfig}


@pytest.mark.parametrize("name", ["flickr30k", "mscoco", "cuhk_pedes"])
def test_each_benchmark_has_its_chain_from_images_to_the_papers_test(name: str):
    chain = [f"{verb} {rest}" for verb, rest in COMMANDS if f"data/{name} " in f"{rest} "]
    verbs = [line.split()[0] for line in chain]
    assert list(dict.fromkeys(verbs)) == ["prepare", "train", "evaluate"]
    assert all("--vectors GoogleNews" in line for line in chain[:2])
    assert all("--sizes 256 --flip" in line for line in chain[2:])


def _patterns(preset: str) -> list[str]:
    return list(preset_values(preset).get("stage2", {}).get("lr_multipliers", {}))


def test_every_key_of_a_section_exists():
    named = re.findall(r"`(\w+)\.(\w+)`", RECIPE)
    keys = [
        (SECTIONS[section], key) for section, key in named if section in SECTIONS and key != "py"
    ]
    assert keys and all(hasattr(kind(), key) for kind, key in keys)
    patterns = re.findall(r"\| `([\w*]+/[\w*/]+)`", RECIPE)
    used = {pattern for preset in preset_names() for pattern in _patterns(preset)}
    assert patterns and set(patterns) <= used
    assert all(hasattr(LossConfig(), key) for key in re.findall(r"`stage2\.loss\.(\w+)`", RECIPE))
    assert hasattr(Config(), "stage2")
