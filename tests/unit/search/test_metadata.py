"""A table of records gives any row without reading the others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tf_dpce.search.embedding_store import write_lines
from tf_dpce.search.metadata import Table, write_table


def records(seed: int, count: int) -> list[dict[str, str]]:
    draw = np.random.default_rng(seed)
    signs = list('aé狗🐕 "\\\t')  # one to four bytes each, and what JSON escapes
    return [
        {"id": str(n), "text": "".join(draw.choice(signs, draw.integers(0, 40)))}
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_the_joined_files(tmp_path: Path, seed: int):
    expected = records(seed, 50)
    parts = [expected[:7], [], expected[7:]]
    for number, part in enumerate(parts):
        write_lines(tmp_path / f"{number}.jsonl", part)
    path = tmp_path / "all.jsonl"
    assert write_table(path, [tmp_path / f"{number}.jsonl" for number in range(3)]) == 50
    table = Table(path)
    assert len(table) == 50
    # The plain reference: read all lines, take one.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == expected
    for row in np.random.default_rng(seed).permutation(50).tolist():
        assert table[row] == expected[row]


def test_threads_may_look_up_at_once(tmp_path: Path):
    expected = records(0, 500)
    write_lines(tmp_path / "part.jsonl", expected)
    write_table(tmp_path / "all.jsonl", [tmp_path / "part.jsonl"])
    table = Table(tmp_path / "all.jsonl")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(table.__getitem__, range(500))) == expected


def test_a_look_up_reads_its_own_line_only(tmp_path: Path):
    write_lines(tmp_path / "part.jsonl", [{"id": str(n)} for n in range(10)])
    write_table(tmp_path / "all.jsonl", [tmp_path / "part.jsonl"])
    with (tmp_path / "all.jsonl").open("r+b") as stream:
        stream.write(b"#" * len(b'{"id": "0"}'))  # the first line is no longer JSON
    assert Table(tmp_path / "all.jsonl")[9] == {"id": "9"}
