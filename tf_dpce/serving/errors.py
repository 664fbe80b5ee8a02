"""What goes wrong between a client and a model server, by the names that gRPC has for it."""

from __future__ import annotations

from tf_dpce.errors import UserError

# The number of gRPC, which is TensorFlow's as well, and the HTTP status that TF Serving answers.
CODES = {
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
TOO_LARGE = 413  # no gRPC name has this status

_BY_NUMBER = {number: name for name, (number, _) in CODES.items()}
_BY_HTTP = {
    **{http: name for name, (_, http) in reversed(CODES.items())},
    # What proxies answer for a server that is away or broke off, and what several names share.
    **{400: "INVALID_ARGUMENT", 502: "UNAVAILABLE", 500: "INTERNAL"},
    TOO_LARGE: "RESOURCE_EXHAUSTED",
}


class ServingError(UserError):
    """A request that a model server did not answer.

    Args:
        code: a key of `CODES`.
        message: what the server, or the way to it, says.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Refused(ServingError):
    """A request that nobody took, or that the model server itself declines.

    It may be sent again: it is done by nobody, and not what brought a server down.
    """


def of_number(number: int, message: str) -> ServingError:
    """Returns the error of a number of gRPC or TensorFlow."""
    return ServingError(_BY_NUMBER.get(number, "UNKNOWN"), message)


def of_http(status: int, message: str) -> ServingError:
    """Returns the error of an HTTP status."""
    return ServingError(_BY_HTTP.get(status, "UNKNOWN"), message)
