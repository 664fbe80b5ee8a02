"""The pages of the documentation, their code blocks and their links, for tests to read and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(PROJECT))
    for path in (
        PROJECT / "README.md",
        PROJECT / "CONTRIBUTING.md",
        PROJECT / "saved_models" / "README.md",
        *(PROJECT / "docs").rglob("*.md"),
    )
)
VERB = "python -m pipelines."


def text(page: str) -> str:
    """Returns a page, named relative to the project."""
    return (PROJECT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def commands(page: str, start: str = "") -> list[str]:
    """Returns the command lines of a page that begin with `start`."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and line.startswith(start)]


def command(page: str, verb: str, containing: str = "") -> str:
    """Returns the first command line of a page that calls a verb."""
    found = [line for line in commands(page, f"{VERB}{verb} ") if containing in line]
    assert found, f"{page} has no command {verb} with {containing!r}"
    return found[0]


def run_command(line: str, folder: Path, more: str = "") -> str:
    """Runs a command line in a folder, by a shell, and returns what it printed."""
    return _run(
        ["bash", "-c", f"{line.replace('python ', f'{sys.executable} ', 1)} {more}"], folder
    )


def run_script(script: str, folder: Path) -> str:
    """Runs Python text in a folder and returns what it printed."""
    return _run([sys.executable, "-c", script], folder)


def _run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
