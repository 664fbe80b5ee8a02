"""`demo` as a verb: what it may replace. The line that it runs is in tests/integration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import demo
from tests.errors import printed_code, raises
from tests.samples import digests
from tf_dpce.files import exclusive_lock

REACHED = {
    "images": 16,
    "captions": 80,
    "word_order_accuracy": 50.0,
    **{way: {"r1": 1.0, "r5": 5.0, "r10": 9.0} for way in ("image_to_text", "text_to_image")},
}


@pytest.fixture
def lines(monkeypatch) -> Iterator[list[set[str]]]:
    """Stands where the line would run: it notes what it found, and leaves what a line leaves."""
    found: list[set[str]] = []

    def run_line(out: Path) -> dict[str, Any]:
        found.append({item.name for item in out.iterdir()} - {".demo"})
        (out / "data").mkdir()
        (out / "data" / "manifest.json").write_text("{}")
        (out / "run").mkdir()
        (out / "hits.png").write_bytes(b"drawn")
        return REACHED

    monkeypatch.setattr(demo, "run_line", run_line)
    return found


def run(out: Path) -> int:
    return demo.main(["--out", str(out)])


def test_a_demo_replaces_the_one_before(lines: list, tmp_path: Path, capsys):
    out = tmp_path / "runs" / "demo"
    assert run(out) == run(out) == 0
    assert lines == [set(), set()]
    assert "16 unseen scenes, 80 captions" in capsys.readouterr().out


def test_a_killed_demo_is_replaced_however_early_it_ended(lines: list, tmp_path: Path):
    demo.claim(tmp_path / "demo")
    (tmp_path / "demo" / "data" / "scenes").mkdir(parents=True)
    assert run(tmp_path / "demo") == 0
    assert lines == [set()]


def test_what_somebody_put_beside_a_demo_stays(lines: list, tmp_path: Path):
    assert run(tmp_path / "demo") == 0
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    assert run(tmp_path / "demo") == 0
    assert lines == [set(), {"notes.txt"}]


def test_what_a_link_leads_to_stays(lines: list, tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "photo").write_text("mine")
    demo.claim(tmp_path / "demo")
    (tmp_path / "demo" / "data").symlink_to(tmp_path / "precious")
    assert run(tmp_path / "demo") == 0
    assert (tmp_path / "precious" / "photo").exists()


@pytest.mark.parametrize("name", ["data/manifest.json", "notes.txt"])
def test_a_folder_that_no_demo_made_is_refused_and_left_as_it_is(
    lines: list, tmp_path: Path, capsys, name: str
):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = digests(tmp_path)
    assert run(tmp_path) == 1
    assert printed_code(capsys.readouterr().err) == "demo.folder"
    assert digests(tmp_path) == before and lines == []


def test_a_second_demo_at_the_same_time_is_refused(lines: list, tmp_path: Path, capsys):
    demo.claim(tmp_path)
    with exclusive_lock(tmp_path):
        assert run(tmp_path) == 1
    assert printed_code(capsys.readouterr().err) == "file.locked"
    assert lines == []


def test_a_step_that_fails_ends_the_demo_and_says_why(tmp_path: Path, capsys):
    (tmp_path / "demo").write_text("no folder")
    with raises("demo.step"):
        demo.run_line(tmp_path / "demo")
    assert printed_code(capsys.readouterr().err) is not None
