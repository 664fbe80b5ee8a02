"""Sides of pairs that compute nothing, for processes that compare them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.pairs import Work

_MEBIBYTE = 2**20


def side(folder: Path, answer: list[float] | None, count: float, first: bool = False) -> Work:
    """Opens work that is done at once; the first side writes what the others read."""
    if first:
        (folder / "shared").write_text(os.environ.get("TF_DPCE_PLAIN", "not set"))
    assert (folder / "shared").read_text() == "first"
    return Work(lambda: None, answer, count)


def holder(folder: Path, own: int, child: int) -> Work:
    """Opens a process that holds so many MiB, and starts one that holds others."""
    script = f"import sys; data = b'x' * {child * _MEBIBYTE}; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script]
    held = [b"x" * (own * _MEBIBYTE)]
    if child:
        held.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        held[-1].stdout.readline()
    return Work(held.copy, None, 1)
