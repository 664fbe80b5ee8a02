"""`demo` as a verb: what it may replace. The line that it runs is in tests/integration."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import demo
from tests.errors import printed_code, raises
from tests.samples import digests
from tests.terminals import on_a_terminal
from tests.unit.serving.servers import free_port
from tf_dpce.files import exclusive_lock

REACHED = {
    "images": 16,
    "captions": 80,
    "word_order_accuracy": 50.0,
    "swaps": {"colour": (62.5, 64), "shape": (0.0, 16)},
    "turned_accuracy": 71.3,
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
    # Nobody sits at a terminal here, whatever pytest was started from.
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return found


def run(out: Path) -> int:
    return demo.main(["--out", str(out)])


def test_a_demo_replaces_the_one_before_and_nothing_else(lines: list, tmp_path: Path, capsys):
    out, precious = tmp_path / "runs" / "demo", tmp_path / "precious"
    assert run(out) == run(out) == 0
    said = capsys.readouterr().out
    assert "16 unseen scenes, 80 captions" in said
    # Without a terminal it ends, and says how to open the page.
    model = out / "saved_models" / "scenes"
    command = f"python -m pipelines.web --index {out / 'index'} --model {model}"
    assert said.splitlines()[-1].endswith(command)
    # Each row of the table: what the false captions are, how many there are, and the percentage.
    rows = [tuple(cell.strip() for cell in line.split("│")[1:-1]) for line in said.splitlines()]
    for row in (("a colour swapped", "64", "62.5"), ("every relation turned", "80", "71.3")):
        assert row in rows
    # What somebody put beside it, and what a link leads to.
    (out / "notes.txt").write_text("mine")
    precious.mkdir()
    (precious / "photo").write_text("mine")
    (out / "run").rmdir()
    (out / "run").symlink_to(precious)
    assert run(out) == 0
    assert lines == [set(), set(), {"notes.txt"}]
    assert (precious / "photo").exists()
    # One that was killed, however early.
    demo.claim(tmp_path / "early")
    (tmp_path / "early" / "data" / "scenes").mkdir(parents=True)
    assert run(tmp_path / "early") == 0 and lines[3] == set()


def test_a_folder_that_is_not_a_demos_or_another_demo_writes_to_is_left_as_it_is(
    lines: list, tmp_path: Path, capsys
):
    for name in ("data/manifest.json", "notes.txt"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        before = digests(out)
        assert run(out) == 1
        assert printed_code(capsys.readouterr().err) == "demo.folder"
        assert digests(out) == before
    demo.claim(tmp_path / "taken")
    with exclusive_lock(tmp_path / "taken"):
        assert run(tmp_path / "taken") == 1
    assert printed_code(capsys.readouterr().err) == "file.locked"
    assert lines == []


def test_a_step_that_fails_ends_the_demo_and_says_why(tmp_path: Path, capsys):
    (tmp_path / "demo").write_text("no folder")
    with raises("demo.step"):
        demo.run_line(tmp_path / "demo")
    assert printed_code(capsys.readouterr().err) is not None


# Stands where the line and the page would run, and runs the demo.
ON_A_TERMINAL = """
import sys
from pipelines import demo
from tests.unit.pipelines.test_demo import REACHED

demo.run_line = lambda out: REACHED
demo.web.show = lambda index, model, listening: print("PAGE", listening.getsockname()[1])
sys.exit(demo.main(sys.argv[1:]))
"""


@pytest.mark.process
def test_on_a_terminal_the_page_stays(project_root: Path, tmp_path: Path):
    port = str(free_port())
    for number, (more, page) in enumerate([([], True), (["--no-web"], False)]):
        options = ["--out", str(tmp_path / str(number)), "--port", port, *more]
        status, said = on_a_terminal(project_root, [sys.executable, "-c", ON_A_TERMINAL, *options])
        assert (status, "80 captions" in said) == (0, True)
        assert (f"PAGE {port}" in said, "pipelines.web --index" in said) == (page, not page)
