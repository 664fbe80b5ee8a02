"""The machine and the version of the code that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tf_dpce

_PACKAGES = ("tensorflow", "keras", "numpy")


def circumstances() -> dict[str, Any]:
    """Returns what a measurement belongs to: `date`, `commit` and `machine`."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "commit": code_version(), "machine": machine_facts()}


def machine_facts() -> dict[str, Any]:
    """Returns the processor, how many cores and GiB may be used, the system and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def memory_bytes() -> int:
    """Returns how much memory the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def code_version() -> str:
    """Returns the commit, with "-dirty" if files differ; without git the version."""
    root = Path(tf_dpce.__file__).parents[1]
    # A package that was installed may lie further below in a repository of somebody else.
    if (root / ".git").exists() and shutil.which("git"):
        # Hashes alone: a tag may move.
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
        answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.strip()
    return f"version {tf_dpce.__version__}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
