"""A user's own table of pairs, by the README's commands and by its script."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from tests.integration.readme import blocks, run_line, run_script, section, verb_lines
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import make_scene

TITLE = "Your own pairs in five commands"
IMAGES = 40
# The commands of the README are for a photographer with ImageNet weights and an hour.
SMALL = (
    "--weights none --image.backbone small --image.input_size 64 --image.head_dim 32 "
    "--text.blocks [1] --text.widths [32] --text.embedding_dim 16 --model.output_dim 32 "
    "--stage1.epochs 2 --stage1.batch_size 8 --stage2.epochs 1 --stage2.batch_size 8"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "images").mkdir()
    with (folder / "pairs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        for number in range(IMAGES):
            scene = make_scene(1, number)
            (folder / "images" / f"{number}.png").write_bytes(draw_png(scene, 64))
            writer.writerows([f"{number}.png", f"{text}."] for text in scene.captions[:2])
    return folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> str:
    """What the last of the five commands prints."""
    prepare, train, embed, index, search, _ = verb_lines(TITLE)
    run_line(prepare, folder)
    run_line(train, folder, SMALL)
    run_line(embed, folder)
    run_line(index, folder)
    return run_line(search.replace("a red bicycle", "two red circles"), folder)


def test_the_five_commands_lead_from_a_table_to_hits(folder: Path, shown: str):
    assert "hits.png" in shown
    assert (folder / "hits.png").stat().st_size > 10_000
    for name in ("config.json", "history.csv", "checkpoints", "tensorboard"):
        assert (folder / "runs" / "mine" / name).exists()


def test_a_killed_run_goes_on(folder: Path, shown: str):
    run_line(verb_lines(TITLE)[-1], folder, SMALL)


def _serving(lines: Iterable[str]) -> Iterator[str]:
    yield from (line for line in lines if "http://localhost" in line)


def test_tensorboard_shows_both_stages(folder: Path, shown: str):
    (line,) = blocks(section("TensorBoard"), "bash")
    command = shlex.split(line.replace("runs/flickr8k", "runs/mine"))
    script = Path(sys.executable).with_name(command[0])
    board = subprocess.Popen(
        [script, *command[1:], "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        (address,) = re.findall(r"http://localhost\S+", next(_serving(board.stderr)))
        with urlopen(f"{address}data/runs", timeout=30) as answer:
            runs = json.load(answer)
        assert {name.split("/")[0] for name in runs} == {"stage1", "stage2"}
    finally:
        board.kill()
        board.communicate()


def test_the_fit_script_ends_in_an_export_that_loads_in_two_lines(folder: Path):
    (script,) = blocks(section("A `keras fit` script of your own"), "python")
    run_script(script, folder)
    (load,) = blocks(section("From Python"), "python")
    load = load.replace("saved_models/flickr8k", "saved_models/mine")
    load = load.replace("two dogs run on the beach", "two red circles")
    run_script(load + "import numpy; numpy.save('vectors.npy', vectors)", folder)
    vectors = np.load(folder / "vectors.npy")
    assert vectors.shape == (1, 256)
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)
