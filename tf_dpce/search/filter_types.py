"""Gives the values of a filter the types of the columns that they are compared with."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.filters import (
    IN,
    IS_NOT_NULL,
    IS_NULL,
    NOT_IN,
    Comparison,
    Condition,
    Junction,
    Negation,
)

_SHOWN = 20  # columns that a message names at most
_DAY = dt.timedelta(days=1)


def typed(condition: Condition, schema: pa.Schema) -> Condition:
    """Returns a condition whose values are scalars that its columns can be compared with.

    A day that is compared with points in time becomes its first moment, or that of the next day.

    Args:
        condition: a tree that was read.
        schema: the columns.

    Raises:
        UserError: there is no such column, or it holds values of another type.
    """
    if isinstance(condition, Negation):
        return Negation(typed(condition.part, schema))
    if isinstance(condition, Junction):
        return replace(condition, parts=tuple(typed(part, schema) for part in condition.parts))
    if condition.column not in schema.names:
        raise _no_column(condition.column, schema.names)
    kind = schema.field(condition.column).type
    if condition.operator in (IS_NULL, IS_NOT_NULL):
        return condition
    if condition.operator in (IN, NOT_IN):
        return _typed_choice(condition, kind)
    if kinds.is_boolean(kind) and condition.operator not in ("=", "!="):
        raise _mistake(condition.column, "is true or false: compare it by = or !=")
    return _typed_comparison(condition, kind)


def _typed_choice(condition: Comparison, kind: pa.DataType) -> Condition:
    """Of points in time a day is a range, so that `in` becomes comparisons."""
    if kinds.is_timestamp(kind):
        of_one, word = ("=", "or") if condition.operator == IN else ("!=", "and")
        each = (replace(condition, operator=of_one, value=value) for value in condition.value)
        return Junction(word, tuple(_typed_comparison(one, kind) for one in each))
    values = tuple(_scalar(condition.column, value, kind) for value in condition.value)
    return replace(condition, value=values)


def _typed_comparison(condition: Comparison, kind: pa.DataType) -> Condition:
    column, sign, value = condition.column, condition.operator, condition.value
    if not (kinds.is_timestamp(kind) and _is_day(value)):
        return replace(condition, value=_scalar(column, value, kind))
    first = _scalar(column, value, kind)
    following = _moment(column, dt.datetime.fromisoformat(value), kind, _DAY)
    if sign in ("=", "!="):
        inside, word = ((">=", "<"), "and") if sign == "=" else (("<", ">="), "or")
        ends = zip(inside, (first, following), strict=True)
        return Junction(word, tuple(Comparison(column, end, at) for end, at in ends))
    if sign in ("<", ">="):
        return replace(condition, value=first)
    return Comparison(column, "<" if sign == "<=" else ">=", following)


def _scalar(column: str, value: Any, kind: pa.DataType) -> pa.Scalar:
    """Returns the value as the column holds it.

    Raises:
        UserError: the column holds other values.
    """
    shown = shorten(repr(value), 30)
    if kinds.is_timestamp(kind) or kinds.is_date(kind):
        return _date_or_moment(column, value, kind)
    if kinds.is_boolean(kind):
        wanted, fits = "true or false", isinstance(value, bool)
    elif kinds.is_integer(kind):
        wanted, fits = "whole numbers", _is_number(value) and value == value // 1
    elif kinds.is_floating(kind):
        wanted, fits = "numbers", _is_number(value)
    elif kinds.is_string(kind) or kinds.is_large_string(kind):
        wanted, fits = "texts: put it in quotation marks", isinstance(value, str)
    else:
        raise _mistake(column, f"holds values of the type {kind}, which cannot be compared")
    if not fits:
        raise _mistake(column, f"cannot be compared with {shown}: it holds {wanted}")
    if kinds.is_integer(kind):
        # Narrow integers are compared with any other; Arrow would refuse 300 as one byte.
        kind = kind if kinds.is_uint64(kind) else pa.int64()
        value = int(value)
    try:
        return pa.scalar(value, kind)
    except (pa.ArrowInvalid, OverflowError):
        raise _mistake(column, f"cannot hold {shown}, which is too large or too small") from None


def _date_or_moment(column: str, value: Any, kind: pa.DataType) -> pa.Scalar:
    try:
        if kinds.is_date(kind):
            return pa.scalar(dt.date.fromisoformat(value), kind)
        moment = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        form = "'2024-12-31'" + " or '2024-12-31 18:30:00'" * kinds.is_timestamp(kind)
        shown = shorten(repr(value), 30)
        message = f"cannot be compared with {shown}: it holds dates: write {form}"
        raise _mistake(column, message) from None
    return _moment(column, moment, kind)


def _moment(
    column: str, moment: dt.datetime, kind: pa.TimestampType, later: dt.timedelta = dt.timedelta(0)
) -> pa.Scalar:
    """Returns a point in time; without a zone it is of UTC if the column has zones."""
    if moment.tzinfo and not kind.tz:
        raise _mistake(column, "holds times without a zone: leave it out")
    # Not cut to whole seconds if the column has no more than these.
    exact = pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz)
    try:
        return pa.scalar((moment.astimezone(dt.UTC) if moment.tzinfo else moment) + later, exact)
    except (pa.ArrowInvalid, OverflowError):
        message = f"cannot hold {moment}, which is too early or too late"
        raise _mistake(column, message) from None


def _is_day(value: Any) -> bool:
    try:
        dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _no_column(column: str, names: list[str]) -> UserError:
    near = get_close_matches(column, names, n=3, cutoff=0.5)
    others = [name for name in names if name not in near]
    listed = ", ".join(shorten(name, 30) for name in [*near, *others][:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    message = f"there is no column '{shorten(column, 30)}', but {listed}{more}"
    return UserError("search.where", f"the filter does not fit the index: {message}")


def _mistake(column: str, message: str) -> UserError:
    start = f"the filter does not fit the index: {shorten(column, 30)}"
    return UserError("search.where", f"{start} {message}")
