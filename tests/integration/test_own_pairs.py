"""A user's own table of pairs, by the commands of the tutorial and the script of the README."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.pages import blocks, command, commands, run_command, run_script
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import make_scene

pytestmark = pytest.mark.process

TUTORIAL = "docs/tutorial.md"
IMAGES = 40
# The commands of the tutorial are for photographs with ImageNet weights, and take an hour.
SMALL = (
    "--weights none --image.backbone small --image.input_size 64 --image.head_dim 32 "
    "--text.blocks [1] --text.widths [32] --text.word_dim 16 --model.output_dim 32 "
    "--stage1.epochs 2 --stage1.batch_size 8 --stage2.epochs 1 --stage2.batch_size 8"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pairs.csv` and `images/`, as the tutorial assumes."""
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
def searched(folder: Path) -> str:
    """What the search at the end of the tutorial prints."""
    for verb in ("prepare", "train", "evaluate", "export", "embed", "index"):
        run_command(command(TUTORIAL, verb), folder, SMALL if verb == "train" else "")
    return run_command(
        command(TUTORIAL, "search").replace("a red bicycle", "two red circles"), folder
    )


def test_the_tutorial_leads_from_a_table_to_hits(folder: Path, searched: str):
    assert "hits.png" in searched
    assert (folder / "hits.png").stat().st_size > 10_000
    for name in ("config.json", "history.csv", "checkpoints", "tensorboard"):
        assert (folder / "runs" / "mine" / name).exists()
    assert (folder / "saved_models" / "mine" / "1" / "saved_model.pb").exists()


def test_a_finished_run_can_be_resumed(folder: Path, searched: str):
    run_command(command(TUTORIAL, "train", "--resume"), folder, SMALL)


def test_tensorboard_shows_both_stages(folder: Path, searched: str):
    (line,) = commands(TUTORIAL, "tensorboard")
    words = shlex.split(line)
    script = Path(sys.executable).with_name(words[0])
    board = subprocess.Popen(
        [script, *words[1:], "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in board.stderr if "http://localhost" in line)
        (address,) = re.findall(r"http://localhost\S+", line)
        with urlopen(f"{address}data/runs", timeout=30) as answer:
            runs = json.load(answer)
        assert {name.split("/")[0] for name in runs} == {"stage1", "stage2"}
    finally:
        board.kill()
        board.communicate()


def test_the_scripts_of_the_readme_fit_export_load_and_search(folder: Path, searched: str):
    load, fit = blocks("README.md", "python")
    # The page on evaluation continues the script.
    (more,) = blocks("docs/evaluation.md", "python")
    more = more.replace("epochs=30", "epochs=1")
    shown = run_script(f"{fit}{more}print(sorted(model.history.history))", folder)
    assert "val_rsum" in shown
    # The fitted model, and the index of the tutorial, in place of those of the demo.
    load = load.replace('"one.png", "two.png"', '"images/0.png", "images/1.png"')
    fitted, _, rest = load.partition("searcher =")
    run_script(fitted.replace("runs/demo/saved_models/scenes", "saved_models/mine"), folder)
    rest = rest.replace("runs/demo/index", "indexes/mine")
    # Version 1 is the tutorial's export, which the index belongs to; the script made version 2.
    rest = rest.replace("runs/demo/saved_models/scenes", "saved_models/mine/1")
    assert len(run_script(f"import tf_dpce\nsearcher ={rest}", folder).splitlines()) == 5
