"""A history of an index, in processes that kill themselves by SIGKILL at one moment after another.

    python -m tests.unit.search.index.changed FOLDER

Makes the changes of `HISTORY`, from `FOLDER/0-0` on. Each is tried in copies `FOLDER/K-N` of the
index after K changes, N = 1, 2, ..., by a process of its own that dies just before it writes,
renames or removes a file for the N-th time, until one lives.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from tests.unit.search.plain import vector
from tf_dpce.search.index.build import FolderIndex
from tf_dpce.search.interface import Index


def add(*names: str) -> Callable[[Index], object]:
    records = pa.table({"id": names, "length": [len(name) for name in names]})
    vectors = np.stack([vector(name) for name in names])
    return lambda index: index.add("images", records, vectors)


def delete(*names: str) -> Callable[[Index], object]:
    return lambda index: index.delete("images", names)


# Eight small segments are merged, and so is one of which a quarter is deleted.
HISTORY = (
    add("a", "b", "c", "d"),
    add("b", "e"),
    delete("a"),
    *(add(f"{number}", "e") for number in range(6)),
    delete("1", "2", "3", "4"),
    delete("b", "c", "d", "e", "0", "5"),
    add("f"),
)
# In which of them processes are killed: one that replaces, one that deletes, two that merge, the
# last deletion.
DEADLY = (1, 2, 8, 9, 10)


def die_at(number: int) -> None:
    moments = count(1)

    def deadly(function: Callable) -> Callable:
        def called(*arguments: object, **options: object) -> object:
            if next(moments) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return called

    for name in ("replace", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    # What is in the system's memory outlives a process, so that waiting for the disk is no use.
    os.fsync = deadly(lambda descriptor: None)


def main(folder: str) -> None:
    # A thread of FAISS would not live on in another process.
    faiss.omp_set_num_threads(1)
    before = Path(folder) / "0-0"
    for step, change in enumerate(HISTORY):
        for number in count(1 if step in DEADLY else 1000):
            copied = Path(shutil.copytree(before, before.with_name(f"{step}-{number}")))
            process = os.fork()
            if not process:
                die_at(number)
                change(FolderIndex(copied))
                os._exit(os.EX_OK)
            if not os.waitpid(process, 0)[1]:
                before = copied
                break


if __name__ == "__main__":
    main(sys.argv[1])
