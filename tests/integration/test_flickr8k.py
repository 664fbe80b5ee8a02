"""The README's line for Flickr8k, on a folder of the authors' layout with drawn images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.integration.readme import run_line, verb_lines
from tests.samples import write_flickr8k

TITLE = "Flickr8k in five commands"

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
    prepare, train, evaluate, export, verify, embed, index, search, *bank = verb_lines(TITLE)
    run_line(prepare, tmp_path)
    shown = run_line(train, tmp_path, SHORT)
    # No caption has a cat. The words are a, the, dog, train, number and w1 to w12.
    assert f"1 of 17 words start from {raw / 'glove.42B.300d.txt'}: " in shown
    run_line(evaluate, tmp_path)
    (metrics,) = (tmp_path / "runs" / "flickr8k").glob("metrics-*.json")
    assert json.loads(metrics.read_text())["images"] == 3
    for line in (export, verify, embed, index):
        run_line(line, tmp_path)
    # The drawn captions know no beach.
    search = search.replace("two dogs run on the beach", "a train dog")
    shown = run_line(search, tmp_path)
    assert len([line for line in shown.splitlines() if ".jpg" in line]) >= 3
    assert (tmp_path / "hits.png").stat().st_size > 5_000
    said = "".join(run_line(line, tmp_path) for line in bank)
    assert re.search(r"hubs among the images are discounted, as \d+ queries tell them", said)
    assert ".jpg" in run_line(search, tmp_path)
