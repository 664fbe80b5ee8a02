"""Shows a person the work that is under way: a bar on a terminal, elsewhere lines of the log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tf_dpce.logging import Progress, duration, logger

SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_UPDATES = 0.1
_WIDTH_WITH_BAR = 60


class PersonDisplay:
    """Shows a person the work that is under way.

    On a terminal that can redraw a line, each piece of work is a bar below the log. Elsewhere it is
    a line of the log now and then. Work that has ended leaves a line of the log in both. Leaving
    the block erases the bars, also those of work that was given up.

    Example:
        >>> from tf_dpce.logging import progress, run_context
        >>> with PersonDisplay() as display, run_context(display=display):
        ...     with progress("images") as work:
        ...         work.update(3, total=10)
    """

    def __init__(self) -> None:
        self._bars: Any = None

    def __enter__(self) -> PersonDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars:
            self._bars.stop()

    @contextmanager
    def __call__(self, description: str, transient: bool = False) -> Iterator[Progress]:
        if not (self._bars and self._bars.tasks):
            self._bars = _new_bars()
        task = self._bars.add_task(description, total=None, note="")
        self._bars.start()
        work = _Shown(self._bars, task)
        try:
            yield work
        finally:
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self._bars.stop()
        if not transient:
            work.log(description)


def _new_bars() -> Any:
    """Returns rich's bars, which show nothing where a line cannot be drawn again."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(_facts(task))

    class SteadyConsole(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a process that is killed could not bring it back

    stream = sys.stderr
    if on_terminal := stream.isatty():
        # Python takes UTF-8 even where the user asks for plain ASCII.
        unicode = "utf" in (os.environ.get("LC_ALL") or os.environ.get("LANG") or "").lower()
        encoding = "utf-8" if unicode else "ascii"
        stream = open(stream.fileno(), "w", encoding=encoding, errors="replace", closefd=False)
    console = SteadyConsole(file=stream)
    columns = [
        TextColumn("{task.description}", markup=False),
        Facts(Column(no_wrap=True, overflow="crop")),
    ]
    if console.width >= _WIDTH_WITH_BAR:
        columns.insert(1, BarColumn(min(40, console.width // 4)))
    return Bars(
        *columns,
        console=console,
        refresh_per_second=4,
        transient=True,
        # What is printed into a file does not belong on the screen.
        redirect_stdout=sys.stdout.isatty(),
        disable=not (on_terminal and console.is_interactive and not os.environ.get("CI")),
    )


def _facts(task: Any) -> str:
    """Returns what is known of a task of rich, the most important first."""
    of_total = "" if task.total is None else f"/{task.total:,.0f}"
    facts = [f"{task.completed:,.0f}{of_total}" if task.completed or of_total else ""]
    if task.time_remaining:
        facts.append(f"{duration(task.time_remaining)} left")
    elif task.total is None:
        facts.append(f"{duration(task.elapsed)} so far")
    if task.speed:
        facts.append(f"{task.speed:,.0f}/s" if task.speed >= 10 else f"{task.speed:.2g}/s")
    return ", ".join(filter(None, [*facts, task.fields["note"]]))


class _Shown(Progress):
    """A task of rich's bars, which is logged now and then if they are not drawn."""

    def __init__(self, bars: Any, task: int) -> None:
        super().__init__()
        self._bars = bars
        self._task = task
        self._drawn, self._logged = 0.0, self.start

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        super().update(done)
        now = time.monotonic()
        if done != total and now < self._drawn + _SECONDS_BETWEEN_UPDATES:
            return
        self._drawn = now
        self._bars.update(self._task, completed=done, total=total, note=note)
        # The longer the work lasts, the rarer the lines.
        pause = max(SECONDS_BETWEEN_LINES, (now - self.start) / 10)
        if self._bars.disable and done != total and now >= self._logged + pause:
            self._logged = now
            task = next(task for task in self._bars.tasks if task.id == self._task)
            logger.info(f"{task.description}: {_facts(task)}")
