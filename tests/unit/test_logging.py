"""The log, the displays of long work and the stop signal, as a program sees them."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

import pytest

from tests.terminals import on_a_terminal, seen
from tf_dpce import display as displays
from tf_dpce.display import PersonDisplay
from tf_dpce.errors import Stopped
from tf_dpce.logging import (
    LogFormat,
    check_stop,
    configure,
    logged_display,
    logger,
    progress,
    run_context,
    stop_requested,
)


def test_without_a_program_nothing_is_shown_and_a_requested_stop_ends_the_work(capsys):
    with progress("images") as display:
        display.update(3, total=10)
    logger.info("nobody listens")
    with run_context(stop_requested=lambda: True), pytest.raises(Stopped, match="resume it"):
        check_stop("resume it")
    check_stop("as before")
    assert not stop_requested() and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_without_a_terminal_long_work_is_one_line_at_its_end(log_format: LogFormat, capsys):
    configure(log_format)
    display = logged_display if log_format == "json" else PersonDisplay()
    with run_context(display=display):
        with progress("images") as display:
            for done in range(1001):
                display.update(done, total=1000)
        # The caller logs a line of its own.
        with progress("epoch 3", transient=True) as display:
            display.update(1, total=1)
        # Work that fails says nothing of an end.
        with pytest.raises(KeyError), progress("captions") as display:
            raise KeyError
    out, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert out == "" and "images: 1000 in " in line
    if log_format == "json":
        event = json.loads(line)
        assert event["level"] == "info" and event["done"] == 1000 and event["seconds"] >= 0


def test_tensorflow_warns_and_announces_nothing(caplog):
    configure()
    logging.getLogger("tensorflow").setLevel(logging.INFO)  # as in a notebook
    logging.getLogger("tensorflow").info("Assets written")
    logging.getLogger("tensorflow").warning("out of memory")
    assert [record.message for record in caplog.records] == ["out of memory"]


def test_off_a_terminal_long_work_is_a_line_now_and_then(monkeypatch, capsys):
    # A fiftieth of the time between lines, for work that takes 0.7 s at the least.
    monkeypatch.setattr(displays, "SECONDS_BETWEEN_LINES", 0.2)
    configure()
    began = time.monotonic()
    with PersonDisplay() as display, run_context(display=display), progress("images") as work:
        # What was done before this process began counts, but not for its speed.
        for done in range(8000, 8071):
            work.update(done, total=10_000, note="loss 2.31")
            time.sleep(0.01)
    *now_and_then, last = capsys.readouterr().err.splitlines()
    assert 1 <= len(now_and_then) <= (time.monotonic() - began) / 0.2
    assert last.startswith("images: 8070 in ")
    form = r"images: (8,0\d\d)/10,000, (\d+) s left, (\d+)/s, loss 2.31"
    for done, left, speed in (re.fullmatch(form, line).groups() for line in now_and_then):
        # At most a hundred a second; on a busy machine fewer.
        assert int(speed) <= 100
        remaining = 10_000 - int(done.replace(",", ""))
        assert int(left) == pytest.approx(remaining / int(speed), rel=0.1)


PROGRAM = """
import signal, sys, time
# What starts the tests in the background may have told them to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipelines._verb import run_verb, verb_parser
from tf_dpce.logging import logger, progress

def run(arguments):
    with progress("stage 1, epoch 3 of 60", transient=True) as epoch:
        epoch.update(399, total=1000, note="loss 2.31, R@1 41.2/35.0")
        logger.warning("one is damaged")
        with progress("images [red]") as images:
            images.update(1, total=2)
            time.sleep(0.3)
        epoch.update(1000, total=1000)
        time.sleep({seconds})

sys.exit(run_verb(lambda: verb_parser("count", ""), run, []))
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "settings", [{}, {"columns": 40}, {"columns": 200}, {"NO_COLOR": "1"}, {"LANG": "C"}], ids=str
)
def test_on_a_terminal_work_is_a_line_below_the_log(project_root, settings):
    command = [sys.executable, "-c", PROGRAM.format(seconds=0)]
    status, said = on_a_terminal(project_root, command, **settings)
    assert status == 0 and "399/1,000" in said
    # Nothing is left of it but what is logged; the cursor, which a kill would lose, stays.
    log, done, *more = seen(said)
    assert (log, done[:15], more) == ("one is damaged", "images [red]: 1", [])
    assert "\x1b[?25l" not in said
    bar, columns = "-" if settings.get("LANG") == "C" else "\u2501", settings.get("columns", 100)
    assert (bar in said) == (columns > 40) and said.isascii() == (bar == "-")
    assert ("\x1b[3" in said) == (columns > 40 and "NO_COLOR" not in settings)
    # No line is so long that the terminal would break it, where it could not be erased.
    drawn = [re.sub(r"\x1b\[[\d;]*\w", "", line) for line in re.split(r"[\r\n]+", said)]
    assert max(map(len, drawn)) <= columns
    assert ("R@1 41.2/35.0" in said) == (columns > 40)


@pytest.mark.process
@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_a_terminal_that_draws_nothing_again_gets_lines(project_root, variables):
    command = [sys.executable, "-c", PROGRAM.format(seconds=0)]
    _, said = on_a_terminal(project_root, command, **variables)
    assert "\x1b" not in said and seen(said)[0] == "one is damaged" and len(seen(said)) == 2


@pytest.mark.process
def test_ctrl_c_erases_what_is_drawn(project_root):
    command = [sys.executable, "-c", PROGRAM.format(seconds=60)]
    status, said = on_a_terminal(project_root, command, interrupt_at="1,000/1,000")
    assert (status, seen(said)[-1]) == (130, "interrupted")
