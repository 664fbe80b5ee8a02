"""What tests assert about a user's mistake: its code, its file and its line, never its wording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tf_dpce.errors import UserError

_CODE = re.compile(r"\[([a-z0-9_]+(?:\.[a-z0-9_]+)+)\]$")


@contextmanager
def raises(
    code: str, path: Path | str | None = None, line: int | None = None
) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Passes if the block raises a `UserError` with this code, of this file and line if given."""
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    assert error.code == code, f"{error.code}: {error}"
    # The message is one line that a person can read.
    assert str(error).strip() and "\n" not in str(error)
    if path is not None:
        assert str(error.path) == str(path)
    if line is not None:
        assert error.line == line


def printed_code(stderr: str) -> str | None:
    """Returns the code that a verb printed behind its last line on stderr, or None."""
    lines = stderr.strip().splitlines()
    found = _CODE.search(lines[-1]) if lines else None
    assert "Traceback" not in stderr
    return found and found.group(1)
