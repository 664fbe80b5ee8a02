"""Processes on a terminal of their own, and what a person sees there in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

CTRL_C = b"\x03"


def on_a_terminal(
    root: Path, command: list[str], columns: int = 100, interrupt_at: str = "", **environment: str
) -> tuple[int, str]:
    """Runs a command on a terminal; returns its status and what it wrote there.

    With `interrupt_at`, Ctrl-C is pressed as soon as that text was written.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {"TERM": "xterm", "LANG": "C.UTF-8", **environment}
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "COLUMNS", "LC_ALL")}
    with subprocess.Popen(
        [*(["setsid", "--ctty"] if interrupt_at else []), *command],
        cwd=root,
        env={**inherited, **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
                if interrupt_at and interrupt_at.encode() in said:
                    os.write(ours, CTRL_C)
                    interrupt_at = ""
        except OSError:  # so Linux ends a terminal whose other side is closed
            pass
        os.close(ours)
    return process.returncode, said.decode()


def seen(said: str) -> list[str]:
    """The lines that stay on a screen, as a terminal without an end below shows them."""
    rows, row, column = [""], 0, 0
    for control, text in re.findall(r"(\x1b\[[\d;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", said):
        if control in ("\r", "\x1b[2K", "\x1b[K"):
            column = 0 if control == "\r" else column
            rows[row] = rows[row] if control == "\r" else rows[row][: column * (control[2] == "K")]
        elif control in ("\n", "\x1b[1A"):
            row += 1 if control == "\n" else -1
            rows += [""] * (row == len(rows))
        before, after = rows[row][:column].ljust(column), rows[row][column + len(text) :]
        rows[row] = before + text + after
        column += len(text)
    return [line.rstrip() for line in rows if line.strip()]
