"""What a client asks: which server, model and version."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A model on a server.

    Attributes:
        address: as `Client` takes it.
        model: its name.
        version: a number, or None.
        label: a version's label, or None.
        headers: sent with every request.
    """

    address: str
    model: str
    version: int | None
    label: str | None
    headers: dict[str, str]
