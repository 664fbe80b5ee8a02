"""The machine and the version of the code that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tf_dpce

_PACKAGES = ("tensorflow", "keras", "numpy")


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
    file = Path(tf_dpce.__file__)
    # A package that was installed may lie below a repository of somebody else.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return f"version {tf_dpce.__version__}"
    # Hashes alone: a tag may move.
    described = _git(
        file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"
    )
    return described or f"version {tf_dpce.__version__}"


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns what git prints, or None if it fails or is not installed."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return None if answer.returncode else answer.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
