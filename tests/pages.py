"""The pages of the documentation and their code blocks, for tests to read and run.

The first line of a block that no test can run is `# not run: REASON`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

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


class Block(NamedTuple):
    """A block of code: its language, its text, and why no test runs it, empty if one does."""

    language: str
    text: str
    reason: str


def all_blocks(page: str) -> list[Block]:
    """Returns the code blocks of a page in their order."""
    form = r"^```(\w+)\n((?:# not run: ([^\n]+)\n)?.*?)^```$"
    found = re.findall(form, text(page), re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def blocks(page: str, language: str) -> list[str]:
    """Returns the text of the code blocks of a language."""
    return [block.text for block in all_blocks(page) if block.language == language]


def lines(block: str) -> list[str]:
    """Returns the lines of a shell's block, of which a backslash at the end makes one."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def calls(line: str) -> Iterator[tuple[Any, list[str]]]:
    """Yields the module and the arguments of each program of ours that a line of a shell calls."""
    # `shlex` would take a `#` within a word for a comment too.
    words = [re.sub(r"\$\w+", "1", w) for w in shlex.split(re.sub(r"(^|\s)#.*", "", line))]
    for place, word in enumerate(words):
        argv = [w for w in words[place + 1 :] if w != "OPTIONS"]
        if " -m pipelines." in word:
            # The argument of another program, such as `sbatch --wrap`.
            yield from calls(word.partition("=")[2] if word.startswith("--") else word)
        elif word == "tf-dpce":
            yield import_module(f"pipelines.{argv[0]}"), argv[1:]
        elif words[place - 1] == "-m" and word.startswith(("pipelines.", "benchmarks")):
            yield import_module("benchmarks.__main__" if word == "benchmarks" else word), argv


def commands(page: str, start: str = "") -> list[str]:
    """Returns the command lines of a page that begin with `start`."""
    found = lines("".join(blocks(page, "bash")))
    return [line for line in found if line.startswith(start)]


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
