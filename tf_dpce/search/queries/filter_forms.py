"""A filter as an expression of Arrow or of Milvus; values stay values and become no text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.milvus.rows import field_name
from tf_dpce.search.queries.filters import IS_NULL, Comparison, Condition, Junction, Negation

_SHOWN = 20  # columns that a message names at most
_NEVER, _DAY = dt.timedelta(0), dt.timedelta(days=1)
_COMPARED = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def typed(condition: Condition, schema: pa.Schema) -> Condition:
    """Returns a condition whose values are scalars that its columns can be compared with.

    A day that is compared with points in time becomes its first moment, or that of the next day.

    Raises:
        UserError: there is no such column, or it holds values of another type.
    """
    if isinstance(condition, Negation):
        return Negation(typed(condition.part, schema))
    if isinstance(condition, Junction):
        return replace(condition, parts=tuple(typed(part, schema) for part in condition.parts))
    column, sign, value = condition.column, condition.operator, condition.value
    if column not in schema.names:
        raise _no_column(column, schema.names)
    if sign == IS_NULL:
        return condition
    kind = schema.field(column).type
    first = _scalar(condition, kind)
    if not (kinds.is_timestamp(kind) and _is_day(value)) or sign in ("<", ">="):
        return replace(condition, value=first)
    following = _scalar(condition, kind, later=_DAY)
    if sign in ("<=", ">"):
        return Comparison(column, "<" if sign == "<=" else ">=", following)
    starts, ends, word = (">=", "<", "and") if sign == "=" else ("<", ">=", "or")
    return Junction(word, (Comparison(column, starts, first), Comparison(column, ends, following)))


def to_arrow(condition: Condition) -> pc.Expression:
    """Returns an expression that is true or false, never null, of a condition with scalars."""
    if isinstance(condition, Negation):
        return ~to_arrow(condition.part)
    if isinstance(condition, Junction):
        return _balanced(condition.word, [to_arrow(part) for part in condition.parts])
    column = pc.field(condition.column)
    if condition.operator == IS_NULL:
        return column.is_null()
    return pc.coalesce(_COMPARED[condition.operator](column, condition.value), pc.scalar(False))


def to_milvus(condition: Condition, parameters: dict[str, Any]) -> str:
    """Returns an expression with names of parameters, which are added to those there are.

    What null compares as differs between versions of Milvus, so that it is asked for by name.
    """
    if isinstance(condition, Negation):
        return f"not ({to_milvus(condition.part, parameters)})"
    if isinstance(condition, Junction):
        parts = (f"({to_milvus(part, parameters)})" for part in condition.parts)
        return f" {condition.word} ".join(parts)
    column, sign = field_name(condition.column), condition.operator
    if sign == IS_NULL:
        return f"{column} {sign}"
    name = f"p{len(parameters)}"
    parameters[name] = _plain(condition.value)
    return f"{column} is not null and {column} {'==' if sign == '=' else sign} {{{name}}}"


def _balanced(word: str, parts: Sequence[pc.Expression]) -> pc.Expression:
    """Combines expressions by halves: Arrow would walk a chain of thousands by recursion."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left, right = _balanced(word, parts[:middle]), _balanced(word, parts[middle:])
    return left & right if word == "and" else left | right


def _scalar(condition: Comparison, kind: pa.DataType, later: dt.timedelta = _NEVER) -> pa.Scalar:
    """Returns the value as the column holds it.

    Raises:
        UserError: the column holds other values.
    """
    value = condition.value
    dates = kinds.is_timestamp(kind) or kinds.is_date(kind)
    fits = isinstance(value, bool) == kinds.is_boolean(kind) and not kinds.is_nested(kind)
    if kinds.is_boolean(kind):
        fits = fits and condition.operator in ("=", "!=")
    if kinds.is_integer(kind):
        fits = fits and isinstance(value, int)
        # Narrow integers are compared with any other; Arrow would refuse 300 as one byte.
        kind = kind if kinds.is_uint64(kind) else pa.int64()
    try:
        if fits and dates:
            value, kind = _date(value, kind)
            value += later
        if fits:
            return pa.scalar(value, kind)
    except (TypeError, ValueError, OverflowError):
        pass  # Arrow's errors are such too
    held = "points in time" if dates else kind
    message = f"{shorten(condition.column, 30)} holds {held}, which cannot be compared by "
    message += f"{condition.operator} with {shorten(repr(condition.value), 30)}"
    message += ": write '2024-12-31' or '2024-12-31 18:30:00'" if dates else ""
    raise UserError("search.where", f"the filter does not fit the index: {message}")


def _date(text: str, kind: pa.DataType) -> tuple[dt.date, pa.DataType]:
    """Returns a date or a point in time, and a type that holds it exactly.

    A point without a zone is of UTC if the column has zones.

    Raises:
        TypeError: it is no text.
        ValueError: it is not what the column holds.
    """
    if kinds.is_date(kind):
        return dt.date.fromisoformat(text), kind
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo and not kind.tz:
        raise ValueError
    # Not cut to whole seconds if the column has no more than these.
    return moment, pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz)


def _is_day(text: str) -> bool:
    try:
        return bool(dt.date.fromisoformat(text))
    except ValueError:
        return False


def _plain(scalar: pa.Scalar) -> Any:
    kind = scalar.type
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        return scalar.cast(pa.timestamp("us", getattr(kind, "tz", None))).value
    return scalar.as_py()


def _no_column(column: str, names: list[str]) -> UserError:
    near = get_close_matches(column, names, n=3, cutoff=0.5)
    others = [name for name in names if name not in near]
    listed = ", ".join(shorten(name, 30) for name in [*near, *others][:_SHOWN])
    message = f"there is no column '{shorten(column, 30)}', but {listed}"
    message += ", ..." if len(names) > _SHOWN else ""
    return UserError("search.where", f"the filter does not fit the index: {message}")
