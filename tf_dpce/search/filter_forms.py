"""A filter as an expression of Arrow or of Milvus; values stay values and become no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
from tf_dpce.search.milvus.rows import field_name

_COMPARED = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_OPPOSITES = {
    "=": "!=",
    "<": ">=",
    "<=": ">",
    IN: NOT_IN,
    IS_NULL: IS_NOT_NULL,
    "and": "or",
}
_OPPOSITES |= {opposite: word for word, opposite in _OPPOSITES.items()}


def to_arrow(condition: Condition) -> pc.Expression:
    """Returns an expression that is true or false, never null, of a condition with scalars."""
    if isinstance(condition, Negation):
        return ~to_arrow(condition.part)
    if isinstance(condition, Junction):
        return _balanced(condition.word, [to_arrow(part) for part in condition.parts])
    column, sign, value = pc.field(condition.column), condition.operator, condition.value
    if sign == IS_NULL:
        return column.is_null()
    if sign == IS_NOT_NULL:
        return column.is_valid()
    if sign in (IN, NOT_IN):
        found = column.isin(pa.array([each.as_py() for each in value], value[0].type))
        return found if sign == IN else column.is_valid() & ~found
    return pc.coalesce(_COMPARED[sign](column, value), pc.scalar(False))


def _balanced(word: str, parts: Sequence[pc.Expression]) -> pc.Expression:
    """Combines expressions by halves: Arrow would walk a chain of thousands by recursion."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left, right = _balanced(word, parts[:middle]), _balanced(word, parts[middle:])
    return left & right if word == "and" else left | right


def to_milvus(condition: Condition, parameters: dict[str, Any], holds: bool = True) -> str:
    """Returns an expression with names of parameters.

    What is null differs between `not` and `not in` of Milvus's versions. So a negation becomes the
    opposite comparison of each column inside it, and what is null is asked for by name.

    Args:
        condition: a tree with scalars.
        parameters: the parameters so far; those of this condition are added.
        holds: whether the condition shall hold; otherwise its opposite.
    """
    if isinstance(condition, Negation):
        return to_milvus(condition.part, parameters, not holds)
    if isinstance(condition, Junction):
        word = condition.word if holds else _OPPOSITES[condition.word]
        parts = (to_milvus(part, parameters, holds) for part in condition.parts)
        return f"({f' {word} '.join(parts)})"
    column, sign = field_name(condition.column), condition.operator
    sign = sign if holds else _OPPOSITES[sign]
    if sign in (IS_NULL, IS_NOT_NULL):
        return f"({column} {sign})"
    name = f"p{len(parameters)}"
    parameters[name] = _plain(condition)
    compared = f"{column} {'==' if sign == '=' else sign} {{{name}}}"
    if holds:
        return f"({compared} and {column} is not null)"
    return f"({compared} or {column} is null)"


def _plain(condition: Comparison) -> Any:
    if condition.operator in (IN, NOT_IN):
        return [_python(value) for value in condition.value]
    return _python(condition.value)


def _python(scalar: pa.Scalar) -> Any:
    if pa.types.is_date(scalar.type):
        scalar = scalar.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(scalar.type):
        return scalar.cast(pa.timestamp("us", scalar.type.tz)).value
    return scalar.as_py()
