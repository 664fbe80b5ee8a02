"""What goes wrong between a client and a model server, by gRPC's names of statuses."""

from __future__ import annotations

from tf_dpce.errors import UserError, shorten

# The number that gRPC and TensorFlow give a status, and the HTTP status that TF Serving answers.
STATUSES = {
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
TOO_LARGE = 413  # the HTTP status of a body above a limit; gRPC has no name of its own for it

_BY_NUMBER = {number: name for name, (number, _) in STATUSES.items()}
_BY_HTTP = {
    **{http: name for name, (_, http) in reversed(STATUSES.items())},
    # What gateways answer for a server that is away or broke off, and what several names share.
    **{400: "INVALID_ARGUMENT", 502: "UNAVAILABLE", 500: "INTERNAL"},
    TOO_LARGE: "RESOURCE_EXHAUSTED",
}

# TF Serving's words for a request that it did not take up, because it computes enough others.
_BUSY = (
    ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted"),
    ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full"),
)
# Its words for a request whose time was up before its batch was computed.
_WAITED = ("RESOURCE_EXHAUSTED", "timeout exceeded while waiting in batching queue")


class ServingError(UserError):
    """A request that a model server did not answer. Its code is "serving.request".

    Args:
        status: a key of `STATUSES`.
        detail: what the server, or the way to it, says.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__("serving.request", f"{status}: {' '.join(detail.split())}")
        self.status = status
        self.detail = detail

    @classmethod
    def of_number(cls, number: int, detail: str) -> ServingError:
        """Returns the error for a status number of gRPC or TensorFlow."""
        return cls(_BY_NUMBER.get(number, "UNKNOWN"), detail)


class Refused(ServingError):
    """A request that no server accepted, or that the model server itself declined.

    It may be sent again: nobody computed it, and it did not bring a server down.
    """


class Busy(Refused):
    """A request that the model server declined because it computes enough others."""


def http_status_name(http_status: int) -> str:
    """Returns gRPC's name for an HTTP status."""
    return _BY_HTTP.get(http_status, "UNKNOWN")


def answered_error(status: str, detail: str) -> ServingError:
    """Returns the error for what a model server, or a gateway in front of it, answered.

    Args:
        status: a key of `STATUSES`.
        detail: the server's own words.
    """
    if any(status == name and words in detail for name, words in _BUSY):
        return Busy(status, shorten(detail))
    if status == _WAITED[0] and _WAITED[1] in detail:
        return ServingError("DEADLINE_EXCEEDED", shorten(detail))
    return ServingError(status, shorten(detail))
