"""The commands of the table in docs/datasets.md read what they say, on small copies of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipelines import prepare
from tests.layouts import LAYOUTS, NAMES
from tests.pages import text
from tf_dpce.data.manifest import Manifest

TABLE = text("docs/datasets.md").partition("## Names of images")[0]
ROWS = [
    (row, command)
    for row, command in re.findall(r"^\| ([^|]+?) \| (.*?) \|", TABLE, re.MULTILINE)
    if "--root" in command or command == "the same"
]


def test_every_row_has_a_small_copy():
    assert len(ROWS) == len(LAYOUTS)
    assert all(row.startswith(name) for (row, _), name in zip(ROWS, LAYOUTS, strict=True))


@pytest.mark.parametrize("number", range(len(LAYOUTS)), ids=list(LAYOUTS))
def test_prepare_reads_the_layout_of_a_row(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    [*LAYOUTS.values()][number](tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ROWS[number - (ROWS[number][1] == "the same")][1]
    # Some rows show a second form of the same command.
    options = shlex.split(re.search(r"`(.*?)`", command)[1])
    assert prepare.main([*options, "--lowercase", "--out", "data/name"]) == 0
    splits = Manifest.load(tmp_path / "data" / "name").splits
    assert sum(split.images for split in splits.values()) == len(NAMES)
    assert all(split.images for split in splits.values())
