"""How cost grows with the size of the work: `python -m benchmarks.growth`.

A curve has the time of one piece of work at several sizes, each in a process of its own, and the
exponent p of the power law time ~ size^p that fits them best.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from benchmarks.pairs import RESULTS, Pair, Side, heading, measure
from benchmarks.peers.train import OURS, SETTINGS
from pipelines._verb import options_verb, say_files
from tf_dpce.files import check_writable, write_json

Name = Literal["images", "length", "batch", "instances", "replicas", "workers"]
_STEP = {**SETTINGS, "stage": 1, "batch": 32}


@dataclass(frozen=True)
class Curve:
    """Work that is done at several sizes.

    Attributes:
        what: the work.
        opener: see `Side`.
        settings: of every size.
        key: the setting that is the size.
        sizes: its values, rising.
    """

    what: str
    opener: str
    settings: dict[str, Any]
    key: str
    sizes: Sequence[int]


def _of_step(what: str, key: str, sizes: Sequence[int]) -> Curve:
    """Returns the curve of a training step, of 32 pairs if they are not the size."""
    return Curve(f"a step {what}", f"{OURS}:ours", _STEP, key, sizes)


CURVES = {
    "images": Curve(
        "256 queries, one at a time, through an index of so many images",
        "benchmarks.peers.search:ours",
        {"batch": 1},
        "size",
        (1_000, 10_000, 100_000, 1_000_000),
    ),
    "length": _of_step("with so many token positions", "length", (8, 16, 32, 64)),
    "batch": _of_step("of so many pairs", "batch", (8, 32, 128)),
    "instances": _of_step("with so many classes", "classes", (1_000, 6_000, 36_000)),
    "replicas": _of_step("of 32 pairs over so many replicas", "replicas", (1, 2, 4)),
    "workers": Curve(
        "preparing 800 files with so many threads",
        "benchmarks.peers.prepare:ours",
        {"images": None, "count": 800},
        "workers",
        (1, 2, 4),
    ),
}


def run(names: list[Name] | None = None, out: Path = RESULTS) -> None:
    """Times work of several sizes in turn and writes `growth-NAME.json` for each curve.

    Args:
        names: images, length, batch, instances, replicas or workers (default: all of them).
        out: folder of the JSON files.
    """
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in names or get_args(Name):
        found = curve(name, CURVES[name])
        path = out / f"growth-{name}.json"
        write_json(path, {**heading(name, None), **found})
        say_files([path])


def curve(name: str, work: Curve) -> dict[str, Any]:
    """Times a curve.

    Returns:
        `what`; `sizes`; `seconds`, with the median, the lowest and the highest of each size;
        `memory` in MiB of each; and what `power_law` fits.
    """
    sides = [
        Side(f"{size:,}", work.opener, {**work.settings, work.key: size}) for size in work.sizes
    ]
    rows = measure(name, Pair(work.what, "", sides[0], tuple(sides[1:]), tolerance=np.inf))["rows"]
    seconds = [row["seconds"] for row in rows]
    fitted = power_law(work.sizes, [each["median"] for each in seconds])
    memory = [row["memory"] for row in rows]
    return {"what": work.what, "sizes": work.sizes, "seconds": seconds, "memory": memory, **fitted}


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    """Fits a power law to the times of rising sizes.

    Args:
        sizes: K numbers above 0.
        seconds: K numbers above 0.

    Returns:
        `exponent`, of the least squares of both logarithms; and `steps`, the K - 1 exponents from
        each size to the next: where they change, the curve bends.

    Example:
        >>> power_law([1, 2, 4], [3.0, 12.0, 48.0])["exponent"]
        2.0
    """
    x, y = np.log2(sizes), np.log2(seconds)
    steps = np.diff(y) / np.diff(x)
    return {"exponent": round(float(np.polyfit(x, y, 1)[0]), 3), "steps": steps.round(3).tolist()}


build_parser, main = options_verb("benchmarks.growth", run)


if __name__ == "__main__":
    sys.exit(main())
