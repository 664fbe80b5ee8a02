"""The documentation's commands for Flickr8k, on drawn images in the layout of its authors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pages import command, run_command
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
