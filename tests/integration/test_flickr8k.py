"""The documentation's commands: for Flickr8k on drawn images, for forty images on photographs."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import pytest

from tests.pages import command, run_command, text
from tests.samples import write_flickr8k

pytestmark = pytest.mark.slow

# One step an epoch of the preset's own towers; ImageNet weights need the network.
SHORT = (
    "--weights none --stage1.epochs 1 --stage1.batch_size 8 --stage2.epochs 1 --stage2.batch_size 8"
)


def test_the_commands_lead_from_the_authors_folders_to_hits(tmp_path: Path):
    raw = tmp_path / "data" / "raw"
    write_flickr8k(raw / "flickr8k", train=12, val=3, test=3)
    numbers = " ".join(["0.5"] * 300)
    (raw / "glove.42B.300d.txt").write_text(f"cat {numbers}\ndog {numbers}\n")
    run_command(command("docs/datasets.md", "prepare", "--source flickr8k"), tmp_path)
    run_command(command("docs/training.md", "train"), tmp_path, SHORT)
    run_command(command("docs/evaluation.md", "evaluate"), tmp_path)
    (metrics,) = (tmp_path / "runs" / "flickr8k").glob("metrics-*.json")
    assert json.loads(metrics.read_text())["images"] == 3
    run_command(
        "python -m pipelines.export --run runs/flickr8k --to saved_models/flickr8k", tmp_path
    )
    run_command(command("docs/search.md", "embed", "--images"), tmp_path)
    run_command(command("docs/search.md", "index"), tmp_path)
    # The drawn captions contain no beach.
    search = command("docs/search.md", "search").replace("two dogs run on the beach", "a train dog")
    shown = run_command(search, tmp_path)
    assert len([line for line in shown.splitlines() if ".jpg" in line]) >= 3
    assert (tmp_path / "hits.png").stat().st_size > 5_000
    for verb, option in (("embed", "--texts"), ("index", "--querybank")):
        run_command(command("docs/search.md", verb, option), tmp_path)
    assert ".jpg" in run_command(search, tmp_path)


def test_forty_photographs_are_found_by_the_tutorials_options(
    tmp_path: Path, flickr8k_root: Path, mobilenet_weights: Path
):
    folder = flickr8k_root / "Flickr8k_text"
    names = (folder / "Flickr_8k.trainImages.txt").read_text().split()
    forty = random.Random(0).sample(names, 40)
    lines = (folder / "Flickr8k.token.txt").read_text().splitlines()
    captions = dict(line.split("\t") for line in lines)
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        rows = [(name, captions[f"{name}#{number}"]) for name in forty for number in range(2)]
        csv.writer(stream).writerows([("image", "caption"), *rows])
    (tmp_path / "images").symlink_to(flickr8k_root / "Flicker8k_Dataset")

    tutorial = "docs/tutorial.md"
    (options,) = re.findall(r"With forty images.*?`(--stage1[^`]*)`", text(tutorial), re.DOTALL)
    run_command(command(tutorial, "prepare"), tmp_path)
    run_command(command(tutorial, "train"), tmp_path, f"{options} --weights {mobilenet_weights}")
    shown = run_command(command(tutorial, "evaluate"), tmp_path)
    assert "95 % intervals of R@1" in shown
    run_command(command(tutorial, "evaluate").replace("test", "train"), tmp_path)
    metrics = json.loads((tmp_path / "runs" / "mine" / "metrics-mine-train-all.json").read_text())
    # By chance one in 31 or so is found.
    for direction in ("image_to_text", "text_to_image"):
        assert metrics[direction]["r1"] > 90
