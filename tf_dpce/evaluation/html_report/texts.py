"""What a report says, from `texts.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


def say(key: str, **values: object) -> str:
    """Returns a text with its places filled.

    Example:
        >>> say("calibrated", split="val")
        'Calibrated on val.'
    """
    return _texts()[key].format(**values)


@cache
def _texts() -> dict[str, str]:
    return tomllib.loads(files(__package__).joinpath("texts.toml").read_text(encoding="utf-8"))
