"""The README's commands and scripts, to be run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()


def section(title: str) -> str:
    """Returns what stands under a heading of second rank."""
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(text: str, language: str) -> list[str]:
    """Returns the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def verb_lines(title: str) -> list[str]:
    """Returns the commands of a section that call a verb."""
    lines = "".join(blocks(section(title), "bash")).splitlines()
    return [line for line in lines if line.startswith("python -m pipelines.")]


def run_line(line: str, folder: Path, more: str = "") -> str:
    """Runs a command line in a folder, by a shell, and returns what it printed."""
    command = line.replace("python ", f"{sys.executable} ", 1)
    return _run(["bash", "-c", f"{command} {more}"], folder)


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
