"""Kills updates of a folder's index, by SIGKILL, and checks what the next one makes of the rest.

    python -m tests.unit.search.find.killed_update ROOT

Each update is a fork of this process, because starting one takes longer than the update. It dies
before its n-th file takes its final name, for every n that there is, or after a random time. What
it prints last is how many died.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.unit.search.find.test_update import Folder
from tests.unit.search.killed import die_at_rename
from tests.unit.search.plain import MODEL, PlainEncoder
from tf_dpce.search.embedding import embed
from tf_dpce.search.find import update as folder_update

KILLED_AT_RANDOM = 12


class SlowEncoder(PlainEncoder):
    """Takes as long as a small network."""

    def encode_with_status(self, kind, items):
        time.sleep(0.002 * len(items))
        return super().encode_with_status(kind, items)


def forked(work: Callable[[], object], seconds: float | None = None) -> int:
    """Does work in a process of its own, and kills it after some seconds; returns its status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def change(folder: Folder) -> None:
    """New, changed, moved, rejected and deleted images, three pieces of them."""
    for number in range(20):
        folder.write(f"new/{number}.jpg", f"{'bad' if number % 7 == 3 else 'new'} {number}")
    folder.write("old/0.jpg", "changed")
    folder.write("old/1.jpg", "bad now")
    (folder.root / "old/2.jpg").unlink()
    (folder.root / "old/3.jpg").rename(folder.root / "moved.jpg")


def check(folder: Folder) -> None:
    folder.update()
    assert folder.indexed() == folder.expected() and len(folder.indexed()) == 20
    assert folder.update()[1] == 0


def main(root: Path) -> None:
    folder_update._PIECE = embed._CHUNK = 8
    folder = Folder(root)
    for number in range(5):
        folder.write(f"old/{number}.jpg", f"old {number}")
    assert forked(folder.update) == 0
    change(folder)
    before = root / "before"
    shutil.copytree(folder.index, before)

    def update(number: int = 0) -> None:
        die_at_rename(number)
        folder_update.update_index(folder.root, folder.index, MODEL, SlowEncoder)

    killed = 0
    while True:
        status = forked(partial(update, killed + 1))
        assert forked(partial(check, folder)) == 0
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        shutil.rmtree(folder.index)
        shutil.copytree(before, folder.index)
    draw = random.Random()
    for _ in range(KILLED_AT_RANDOM):
        shutil.rmtree(folder.index)
        shutil.copytree(before, folder.index)
        for _ in range(3):  # killed again while it goes on
            forked(update, draw.uniform(0, 0.08))
        assert forked(partial(check, folder)) == 0
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
