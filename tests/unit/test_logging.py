"""The log, the displays of long work and the stop signal, as a program sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
    terminal_display,
    without_native_lines,
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
    with run_context(display=logged_display if log_format == "json" else terminal_display):
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


PROGRAM = """
from tf_dpce.logging import configure, logger, progress, run_context, terminal_display
configure()
with run_context(display=terminal_display), progress("images") as display:
    display.update(999, total=1000, note="loss 2.31")
    logger.warning("one is damaged")
    display.update(1000, total=1000, note="loss 2.30")
"""


def test_on_a_terminal_long_work_is_a_bar_and_the_log_stands_above_it():
    terminal, inner = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=inner, env=environment, check=True)
    os.close(inner)
    drawn = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "1000/1000" in drawn and "loss 2.30" in drawn and "\nimages: " not in drawn
    # A line of its own, not behind the bar.
    assert "one is damaged" in [line.rpartition("\x1b[2K")[2] for line in drawn.split("\r\n")]


def test_a_native_line_is_hidden_and_all_others_are_shown(capfd):
    with pytest.raises(KeyError), without_native_lines("Input file read error"):
        os.write(2, b"Input file read error\nInput file read error: disk\n")
        raise KeyError
    os.write(2, b"afterwards\n")
    shown = "Input file read error: disk\nafterwards\n"
    assert capfd.readouterr().err == shown
