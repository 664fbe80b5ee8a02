"""File systems that fill, or refuse to be written to."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own at a folder: root passes over permissions, but not over this.

    With "ro" it shows what the folder holds, and otherwise it is empty and in memory.
    """
    kind = ["--bind", folder] if options == "ro" else ["-t", "tmpfs", "-o", options, "tmpfs"]
    if os.geteuid() or subprocess.run(["mount", *kind, folder], capture_output=True).returncode:
        pytest.skip("only root can mount, and not everywhere")
    try:
        if options == "ro":
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        gc.collect()
        # A file that is still mapped into memory holds the mount. Left behind, it would make
        # pytest fail when it clears this folder away, three runs later.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that refuses to be written to: by its permissions, or for root by a mount."""
    if os.geteuid() == 0:
        with mounted(folder, "ro"):
            yield
        return
    before = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(before)
