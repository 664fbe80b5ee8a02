"""Pairs: processes that take turns, ratios of a round, memory of a process and of its children."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pairs, table
from benchmarks.growth import CURVES
from benchmarks.pairs import NAMES, Pair, Side
from benchmarks.peers.step_config import StepSettings
from pipelines._verb import run_verb
from tests.errors import printed_code, raises
from tests.pages import text
from tf_dpce.files import write_json

SIDES = "tests.unit.benchmarks.plain_sides"
OURS = Side(
    "ours",
    f"{SIDES}:side",
    {"answer": [2.0, -4.0], "count": 10, "first": True},
    environment={"TF_DPCE_PLAIN": "first"},
)
PEER = Side("peer", f"{SIDES}:side", {"answer": [2.0, -4.2], "count": 5}, goal=6.0)
LIMIT = Side("limit", f"{SIDES}:side", {"answer": None, "count": 5})
ABSENT = Side("absent", f"{SIDES}:side", needs=("json", "no_such_module"))
SECONDS = {"ours": [1.0, 2.0, 4.0], "peer": [3.0, 8.0, 8.0], "limit": [1.0, 1.0, 1.0]}
PAIR = Pair("plain", "pieces a second", OURS, (PEER, LIMIT, ABSENT), tolerance=0.06, rounds=3)


def taken(calls: dict, rounds: int, warm_up: int) -> dict[str, np.ndarray]:
    """Makes every call once, and says that it took the time of the table."""
    for call in calls.values():
        call()
    return {name: np.array(SECONDS[name]) for name in calls}


@pytest.mark.process
def test_sides_in_processes_of_their_own_are_compared_round_by_round(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pairs, "interleave", taken)
    found = pairs.measure("plain", PAIR)
    ours, peer, limit = found["rows"]
    # Ours does 10 pieces in a call and takes 1, 2 and 4 seconds for it.
    assert (ours["low"], ours["median"], ours["high"]) == (2.5, 5, 10)
    # 5 pieces in 3, 8 and 8 seconds: ours does twice as many, and a call of the peer takes 3, 4 and
    # 2 times as long, so that ours is faster by 6, 8 and 4.
    assert peer["speed"] == {"low": 4, "median": 6, "high": 8}
    assert peer["goal"] == 6 and limit["goal"] is None
    # -4.2 is 0.2 off, of at most 4.
    assert peer["difference"] == pytest.approx(0.05) and limit["difference"] is None
    assert all(row["memory"] > 5 for row in found["rows"])
    assert found["left_out"] == {"absent": "no_such_module missing"}


@pytest.mark.process
def test_a_side_with_another_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pairs, "interleave", lambda *_: pytest.fail("it is timed"))
    with raises("benchmark.differs"):
        pairs.measure("plain", replace(PAIR, tolerance=0.04))


@pytest.mark.process
def test_memory_is_that_of_a_process_and_of_what_it_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pairs, "interleave", lambda calls, *_: {n: np.ones(3) for n in calls})
    sizes = {"ours": (0, 0), "own": (200, 0), "child": (0, 300)}
    ours, *peers = (
        Side(name, f"{SIDES}:holder", {"own": own, "child": child})
        for name, (own, child) in sizes.items()
    )
    rows = pairs.measure("memory", Pair("plain", "", ours, tuple(peers)))["rows"]
    base, own, child = (row["memory"] for row in rows)
    assert 190 < own - base < 220
    # The child is an interpreter besides; pages that several processes hold count for a part.
    assert 270 < child - base < 330


def test_every_pair_has_a_name_a_goal_and_sides_that_exist():
    page = text("docs/peers.md")
    for name in NAMES:
        assert f"| `{name}` |" in page
        found = import_module(f"benchmarks.peers.{name}").pairs(None)
        assert len({pair.case for pair in found}) == len(found) > 0
        for pair in found:
            sides = (pair.ours, *pair.peers)
            assert len({side.name for side in sides}) == len(sides)
            assert any(side.goal for side in pair.peers) and pair.rounds >= 5
            for side in sides:
                assert_opens(side.opener, side.settings)


def test_every_curve_has_what_its_opener_takes():
    for curve in CURVES.values():
        assert_opens(curve.opener, {*curve.settings, curve.key})


def assert_opens(opener: str, settings: Iterable[str]) -> None:
    # Not by an import: the peer's libraries may be missing.
    module, _, function = opener.partition(":")
    tree = ast.parse(Path(f"{module.replace('.', '/')}.py").read_text())
    (found,) = (node for node in tree.body if getattr(node, "name", "") == function)
    taken = [each.arg for each in found.args.args]
    needed = taken[: len(taken) - len(found.args.defaults)]
    if found.args.kwarg:
        rest = set(settings).difference(taken)
        StepSettings(**dict.fromkeys(rest))
        taken += rest
    assert set(needed) <= {"folder", *settings} <= set(taken)


def measured(name: str, **rows: float) -> dict:
    """What a file holds of a pair in which ours is so much faster than each peer, of goal 2."""
    figures = {
        "unit": "pairs a second",
        "median": 12.0,
        "low": 11.0,
        "high": 13.0,
        "memory": 1234.5,
    }
    faster = [
        {**figures, "name": peer, "goal": 2.0, "speed": dict.fromkeys(("median", "low", "high"), x)}
        for peer, x in rows.items()
    ]
    case = {
        "rounds": 5,
        "rows": [{**figures, "name": "ours"}, *faster],
        "left_out": {"C": "missing"},
    }
    machine = {
        "cpu": "Plain",
        "cores": 2,
        "memory_gib": 8,
        "tensorflow": "2.20.0",
        "torch": "2.13.0",
    }
    stamp = {"date": "2026-01-02T03:04:05", "commit": "0123456789", "images": "drawn"}
    return {"name": name, "machine": machine, "cases": {"batch 8": case}, **stamp}


def test_a_page_gets_the_table_and_the_plot(tmp_path: Path, capsys):
    page, files = tmp_path / "page.md", [tmp_path / f"{n}.json" for n in ("stage2", "train")]
    page.write_text(f"# Title\n\n{table._BEGIN}old\n{table._END}\nEnd.\n")
    write_json(files[0], measured("stage2", A=1.9))
    write_json(files[1], measured("train", A=1.9, B=2.0))
    argv = ["--files", *map(str, files), "--page", str(page)]
    assert run_verb(table.build_parser, lambda a: table.run(a.files, a.page), argv) == 0
    written = page.read_text()
    assert written.startswith("# Title\n") and written.endswith("\nEnd.\n") and "old" not in written
    assert written.index("`train`") < written.index("`stage2`"), "in the order of the list"
    lines = [line for line in written.splitlines() if line.startswith("| B ")]
    assert lines == ["| B | 12 (11 to 13) | 2.00 (2.00 to 2.00) | 2, met | 1,234 |"]
    assert "| 1.90 (1.90 to 1.90) | 2, missed |" in written
    assert "C is left out: missing." in written and "torch 2.13.0" in written
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    # Once more, it is the same.
    table.run(files, page)
    assert page.read_text() == written
    other = tmp_path / "growth-batch.json"
    write_json(other, {"name": "batch", "sizes": [8, 32]})
    with raises("benchmark.file", other):
        table.run([other], page)
    page.write_text("# Title\n")
    with raises("benchmark.marks", page):
        table.run(files, page)


def test_a_folder_with_too_few_images_is_refused_before_any_work(tmp_path: Path, capsys):
    (tmp_path / "one.jpg").write_bytes(b"")
    argv = ["--names", "input", "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    assert pairs.main(argv) == 1
    assert printed_code(capsys.readouterr().err) == "benchmark.images"
    with pytest.raises(SystemExit) as ended:
        pairs.main(["--names", "inputs"])
    assert ended.value.code == 2
