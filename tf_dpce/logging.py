"""One logger, one progress display and one stop signal for the whole library.

The library logs to `logger`, reports long work through `progress` and asks `check_stop` whether it
shall end early. None of the three does anything until a program sets them up: the verbs do, with
`configure`; a script of one's own may leave them alone.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TextIO, TypeVar

from tf_dpce.errors import Stopped

LogFormat = Literal["text", "json"]
Item = TypeVar("Item")

logger = logging.getLogger("tf_dpce")
logger.addHandler(logging.NullHandler())


class Progress:
    """One piece of long work: how much of it is done, and for how long it has run."""

    def __init__(self) -> None:
        self.done = 0
        self.start = time.monotonic()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Notes that `done` units of `total` are finished; a bar shows `note` behind it."""
        self.done = done

    def log(self, description: str) -> None:
        """Logs what was done."""
        seconds = time.monotonic() - self.start
        fields = {"done": self.done, "seconds": round(seconds, 1)}
        logger.info(f"{description}: {self.done} in {seconds:.1f} s", extra={"fields": fields})


Display = Callable[[str, bool], AbstractContextManager[Progress]]


@contextmanager
def silent_display(description: str, transient: bool = False) -> Iterator[Progress]:
    """Shows nothing."""
    yield Progress()


@contextmanager
def logged_display(description: str, transient: bool = False) -> Iterator[Progress]:
    """Logs one line at the end of a piece of work; for logs that machines read."""
    display = Progress()
    yield display
    if not transient:
        display.log(description)


@dataclass(frozen=True)
class RunContext:
    """What a program sets up for the work that runs in it.

    Attributes:
        stop_requested: whether the work shall stop as soon as it can be resumed later.
        display: context manager that opens the display of one piece of work, by its description,
            and whether the display leaves nothing behind.
    """

    stop_requested: Callable[[], bool] = lambda: False
    display: Display = silent_display


_context = RunContext()


@contextmanager
def run_context(**changes: object) -> Iterator[None]:
    """Replaces parts of the current `RunContext` within the block, in all threads.

    Example:
        >>> with run_context(stop_requested=lambda: True):
        ...     stop_requested()
        True
    """
    global _context
    before = _context
    _context = replace(before, **changes)
    try:
        yield
    finally:
        _context = before


def current_context() -> RunContext:
    """Returns the context of the running program."""
    return _context


def stop_requested() -> bool:
    """Returns whether the running program was asked to stop."""
    return _context.stop_requested()


def check_stop(message: str) -> None:
    """Ends work that was asked to stop.

    Args:
        message: where the work stands and how to resume it.

    Raises:
        Stopped: a stop was requested.
    """
    if stop_requested():
        raise Stopped(message)


def progress(description: str, transient: bool = False) -> AbstractContextManager[Progress]:
    """Opens the display of a piece of long work.

    Args:
        description: what is counted, in the plural.
        transient: whether the display vanishes when the work ends, because the caller logs a line
            of its own then.

    Example:
        >>> with progress("images") as display:
        ...     display.update(3, total=10)
    """
    return _context.display(description, transient)


def tracked(
    items: Iterable[Item],
    description: str,
    total: int | None = None,
    transient: bool = True,
    size: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Item]:
    """Yields items, and shows how many of them were worked on.

    Args:
        items: what is worked on, one after the other.
        description: what they are, in the plural.
        total: how many there are, if that is known.
        transient: as in `progress`.
        size: for how many an item counts, such as a batch.

    Example:
        >>> sum(tracked([1, 2, 3], "numbers", total=3))
        6
    """
    with progress(description, transient) as display:
        done = 0
        for item in items:
            yield item
            done += size(item)
            display.update(done, total)


def configure(log_format: LogFormat = "text") -> None:
    """Sends the log of the library to stderr.

    Args:
        log_format: "text", one message a line; or "json", one object a line with `time` (seconds
            since 1970), `level`, `message` and whatever the record carries as `fields`.
    """
    handler = _StderrHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else logging.Formatter())
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # In a notebook TensorFlow would announce what it does, twice.
    logging.getLogger("tensorflow").addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def duration(seconds: float) -> str:
    """Returns a time as a person says it.

    Example:
        >>> duration(42.3), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _StderrHandler(logging.StreamHandler):
    """Writes to what `sys.stderr` is now: above a bar, rich puts a stream of its own there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(event, ensure_ascii=False)
