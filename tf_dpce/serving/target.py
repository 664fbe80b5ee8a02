"""What a client asks: which server, model and version, by requests of which size."""

from __future__ import annotations

from dataclasses import dataclass

# The development server's limit, and a usual one for what stands in front of TF Serving, which
# itself has none over REST and 2 GiB over gRPC.
MAX_REQUEST_BYTES = 64 * 2**20
# The rest is for names around an item.
ITEM_BYTES = MAX_REQUEST_BYTES - 2**16


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
