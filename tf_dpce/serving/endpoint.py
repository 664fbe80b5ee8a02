"""Which server, model and version a client asks, and how patiently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from tf_dpce.errors import UserError, shorten

# The development server's limit, and a usual one of gateways. TF Serving itself has no limit over
# REST, and 2 GiB over gRPC.
MAX_REQUEST_BYTES = 64 * 2**20
# The rest is for names around an item.
MAX_ITEM_BYTES = MAX_REQUEST_BYTES - 2**16

_SCHEMES = ("http", "https", "grpc", "grpcs")
_LONGEST_TIMEOUT = 86_400


@dataclass(frozen=True)
class Endpoint:
    """A model on a server, with the options of `Client`.

    Attributes:
        url: `address`, split into its parts.

    Raises:
        UserError: the address has another scheme, no host or an impossible port; version and label
            are both given; or a number is out of its range.
    """

    address: str
    model: str
    version: int | None = None
    label: str | None = None
    timeout: float = 30.0
    retries: int = 3
    headers: Mapping[str, str] | None = None
    batch: int = 32
    connections: int = 8
    url: SplitResult = field(init=False)

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            message = "a request names a version or a label, not both: leave one out"
            raise UserError("client.version", message)
        counts = self.batch >= 1 and self.connections >= 1 and self.retries >= 0
        if not (counts and 0 < self.timeout <= _LONGEST_TIMEOUT):
            raise UserError(
                "client.range",
                f"batch={self.batch}, connections={self.connections}, retries={self.retries}, "
                f"timeout={self.timeout}: set a batch and connections of 1 or more, 0 retries or "
                f"more, and above 0 to {_LONGEST_TIMEOUT} seconds",
            )
        try:
            url = urlsplit(self.address)
            valid = url.scheme in _SCHEMES and url.hostname and url.port != 0
        except ValueError:  # a port beyond 65535, a bracket that is not closed
            valid = False
        if not valid:
            raise UserError(
                "client.address",
                f"{shorten(self.address)} is no address of a model server: write http://HOST:8501 "
                "for REST or grpc://HOST:8500 for gRPC",
            )
        object.__setattr__(self, "url", url)
