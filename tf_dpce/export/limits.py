"""Which limits of an image's bytes and pixels a model can be exported with."""

from __future__ import annotations

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.status import Limits

# Lower limits of bytes or pixels would refuse the golden examples themselves.
LEAST_LIMIT = 20_000
_LARGEST_LIMIT = 2**31 - 1


def check_limits(limits: Limits) -> None:
    """Refuses limits that no export can have.

    Raises:
        UserError: one is too small or too large.
    """
    for name, value in vars(limits).items():
        if not LEAST_LIMIT <= value <= _LARGEST_LIMIT:
            message = f"{name} is {value:,}: choose it from {LEAST_LIMIT:,} to {_LARGEST_LIMIT:,}"
            raise UserError("export.limits", message)
