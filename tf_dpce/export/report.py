"""What a verification found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tf_dpce.export.process import ModelError


class Differs(Exception):
    """An export is not what it should be; the message says in what."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class Report:
    """All that was looked at in one exported version."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> list[str]:
        """One line for each check that failed."""
        return [f"{check.name}: {check.finding}" for check in self.checks if not check.passed]


def look(name: str, function: Callable[..., str], *arguments: Any) -> Check:
    """Returns what a function finds, or with what error it fails."""
    try:
        return Check(name, True, function(*arguments))
    except Exception as error:
        return failed(name, error)


def failed(name: str, error: Exception) -> Check:
    """Returns a check that an error made fail."""
    text = (str(error).splitlines() or [""])[0]
    known = isinstance(error, (Differs, ModelError))
    return Check(name, False, text if known else f"{type(error).__name__}: {text}")
