"""Records beside vectors, looked up by row without reading the others.

Searching a million lines for one is what makes a fast index slow, so the byte at which each
line starts is kept in a table of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.files import publish_file


def write_table(path: Path, sources: Iterable[Path]) -> int:
    """Joins JSON Lines files into `path` and writes their table of offsets beside it.

    Args:
        path: `NAME.jsonl`; the table is `NAME.offsets.npy`, int64 [N + 1].
        sources: files of one record a line.

    Returns:
        N, the number of records.
    """
    offsets = [0]
    with publish_file(path) as temporary, temporary.open("wb") as output:
        for source in sources:
            with source.open("rb") as lines:
                for line in lines:
                    output.write(line)
                    offsets.append(offsets[-1] + len(line))
    with publish_file(_offsets(path)) as temporary, temporary.open("wb") as output:
        np.save(output, np.asarray(offsets, np.int64), allow_pickle=False)
    return len(offsets) - 1


class Table:
    """The records of a table; several threads may read it at once.

    Args:
        path: what `write_table` wrote.

    Raises:
        FileNotFoundError: it or its table of offsets is missing.
        ValueError: they do not belong together.
    """

    def __init__(self, path: Path) -> None:
        self._offsets = np.load(_offsets(path), mmap_mode="r", allow_pickle=False)
        # A map outlives the file's name, so an index may be replaced while it is searched.
        self._lines = np.memmap(path, np.uint8, mode="r")
        if len(self._lines) != self._offsets[-1]:
            raise ValueError(f"{path} is not as long as its table says")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Returns the record of one row."""
        start, end = self._offsets[row : row + 2].tolist()
        return json.loads(self._lines[start:end].tobytes())


def _offsets(path: Path) -> Path:
    return path.with_suffix(".offsets.npy")
