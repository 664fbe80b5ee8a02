"""Which server, model and version a client asks, and how large its requests may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from tf_dpce.errors import UserError

# The development server's limit, and a usual one of gateways. TF Serving itself has no limit over
# REST, and 2 GiB over gRPC.
MAX_REQUEST_BYTES = 64 * 2**20
# The rest is for names around an item.
MAX_ITEM_BYTES = MAX_REQUEST_BYTES - 2**16

_SCHEMES = ("http", "https", "grpc", "grpcs")


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        address: "http://HOST:8501", or with "https", "grpc" or "grpcs".
        model: its name on the server.
        version: number of a version, or None.
        label: label of a version, or None.
        headers: names and values that every request carries.
        url: `address`, split into its parts.

    Raises:
        UserError: the address has another scheme, no host or an impossible port; or version and
            label are both given.
    """

    address: str
    model: str
    version: int | None = None
    label: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    url: SplitResult = field(init=False)

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            message = "a request names a version or a label, not both: leave one out"
            raise UserError("client.version", message)
        try:
            url = urlsplit(self.address)
            valid = url.scheme in _SCHEMES and url.hostname and url.port != 0
        except ValueError:  # a port beyond 65535, a bracket that is not closed
            valid = False
        if not valid:
            raise UserError(
                "client.address",
                f"{self.address} is no address of a model server: write http://HOST:8501 for REST "
                "or grpc://HOST:8500 for gRPC",
            )
        object.__setattr__(self, "url", url)
