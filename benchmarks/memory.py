"""The memory that processes hold, and those that they start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

_SECONDS = 0.2


@contextmanager
def watched_peaks(processes: Mapping[str, int]) -> Iterator[dict[str, float]]:
    """Yields the most MiB that each process and its descendants held, complete after the block.

    For a process without descendants it is the kernel's own peak since it began. Several share
    memory: each page counts for a part by the number of processes that hold it, and the sum is
    looked at five times a second.

    Args:
        processes: their numbers by names; they live as long as the block.
    """
    peaks = dict.fromkeys(processes, 0.0)
    done = Event()

    def watch() -> None:
        while not done.wait(_SECONDS):
            look()

    def look() -> None:
        for name, number in processes.items():
            peaks[name] = max(peaks[name], tree_mib(number))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
        look()


def peak_mib(process: int | str = "self") -> float:
    """Returns the most MiB that a process has held since it began; 0 if it has ended."""
    # Not `getrusage`, whose figure begins with what the parent held.
    return _kib(Path(f"/proc/{process}/status"), "VmHWM:") / 1024


def tree_mib(number: int) -> float:
    """Returns the MiB of a process and all its descendants: of one alone, its highest so far."""
    tree = [number]
    for one in tree:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            tree += map(int, _text(path).split())
    if len(tree) == 1:
        return peak_mib(number)
    shares = sum(_kib(Path(f"/proc/{one}/smaps_rollup"), "Pss:") for one in tree)
    return max(peak_mib(number), shares / 1024)


def _kib(path: Path, field: str) -> int:
    for line in _text(path).splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def _text(path: Path) -> str:
    """Returns what a file of the kernel says; nothing if its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
