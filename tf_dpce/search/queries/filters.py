"""Filters: `taken >= '2024-01-01' and folder = 'dogs'`, read into a tree and checked.

    filter      any
    any         every {"or" every}
    every       one {"and" one}
    one         "not" one | "(" any ")" | comparison
    comparison  column ("=" | "!=" | "<" | "<=" | ">" | ">=") value
              | column ["not"] "in" "(" value {"," value} ")"
              | column ["not"] "like" 'text%'
              | column "is" ["not"] "null"
    value       'text' | "text" | number | true | false
    column      name | `name with spaces`

`folder like 'dogs/%'` means what begins with `dogs/`; its only wildcard is one % at the end.

A quotation mark inside a text is doubled. A value that is not known, null, compares as false:
neither `width > 640` nor `width <= 640` finds an image of unknown width, but `width is null` does.
A date without a time means the whole day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_dpce.errors import UserError, shorten

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
IS_NULL = "is null"

_LONGEST = 10_000  # characters of a filter
_LAST = "\U0010ffff"  # of Unicode
_DEEPEST = 50  # parentheses and negations inside one another
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<quoted>`[^`]+`)
    |(?P<name>[^\W\d]\w*)
    |(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<sign>[=!<>]+|[(),])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Comparison:
    """A column and what it is compared with: a value, or None of `is null`."""

    column: str
    operator: str
    value: Any = None


@dataclass(frozen=True)
class Junction:
    """Conditions of which all hold, `and`, or at least one, `or`."""

    word: str
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Negation:
    """A condition that does not hold."""

    part: Condition


Condition = Comparison | Junction | Negation


@dataclass(frozen=True)
class Filter:
    """A condition on the columns of an index.

    Attributes:
        condition: the tree.

    Example:
        >>> import pyarrow as pa
        >>> images = pa.table({"folder": ["dogs", "cats"], "width": [640, None]})
        >>> chosen = Filter.parse("folder in ('dogs', 'cats') and not width >= 800")
        >>> images.filter(chosen.to_arrow(images.schema))["folder"].to_pylist()
        ['dogs', 'cats']
    """

    condition: Condition

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Reads a filter; the grammar is that of this module.

        Args:
            text: what was typed.

        Returns:
            The filter.

        Raises:
            UserError: it cannot be read, or is too long or nested too deeply.
        """
        return cls(_Reader(text).whole())

    def check(self, schema: pa.Schema) -> None:
        """Makes sure that the columns exist and can be compared with the values.

        Args:
            schema: the columns of the items.

        Raises:
            UserError: there is no such column, or it holds values of another type.
        """
        self.to_arrow(schema)

    def to_arrow(self, schema: pa.Schema) -> pc.Expression:
        """Returns an expression that is true or false for each row, never null; see `check`.

        Args:
            schema: the columns of the items.
        """
        from tf_dpce.search.queries.filter_forms import to_arrow, typed

        return to_arrow(typed(self.condition, schema))

    def to_milvus(self, schema: pa.Schema) -> tuple[str, dict[str, Any]]:
        """Returns an expression with the names of parameters, `{p0}`, and the parameters.

        Points in time and dates are integers there: microseconds since 1970. See `check`.

        Args:
            schema: the columns of the items.
        """
        from tf_dpce.search.queries.filter_forms import to_milvus, typed

        parameters: dict[str, Any] = {}
        return to_milvus(typed(self.condition, schema), parameters), parameters


@dataclass(frozen=True)
class _Token:
    """A part of a filter: a "name", a "value", a "sign" or word of the grammar, or its "end"."""

    kind: str
    content: Any
    start: int


class _Reader:
    """Reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            message = f"the filter has {len(text):,} characters: use at most {_LONGEST:,}"
            raise UserError("search.where", message)
        # As the names of files are stored.
        self._text = text.encode("utf-8", "backslashreplace").decode()
        self._tokens = list(self._split())
        self._next = 0

    def whole(self) -> Condition:
        condition = self._any(0)
        if self._token.kind != "end":
            raise self._unexpected("'and' or 'or'")
        return condition

    def _split(self) -> Iterator[_Token]:
        start, kind = 0, ""
        while kind != "end":
            found = _TOKEN.match(self._text, start)
            if found is None:
                raise self._mistake(start, "which is neither a name nor a value, or has no end")
            kind, start = str(found.lastgroup), found.end()
            yield _Token(*_meaning(kind, found[kind]), found.start(kind))

    def _any(self, depth: int) -> Condition:
        return self._series("or", self._every, depth)

    def _every(self, depth: int) -> Condition:
        return self._series("and", self._one, depth)

    def _series(self, word: str, part: Callable[[int], Condition], depth: int) -> Condition:
        parts = [part(depth)]
        while self._skip(word):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _one(self, depth: int) -> Condition:
        if depth > _DEEPEST:
            message = f"the filter is nested too deeply: use at most {_DEEPEST} levels"
            raise UserError("search.where", message)
        if self._skip("not"):
            return Negation(self._one(depth + 1))
        if self._skip("("):
            condition = self._any(depth + 1)
            self._require(")")
            return condition
        return self._comparison()

    def _comparison(self) -> Condition:
        column = self._take("name", "the name of a column")
        if self._skip("is"):
            negated = self._skip("not")
            self._require("null")
            unknown = Comparison(column, IS_NULL)
            return Negation(unknown) if negated else unknown
        if self._skip("in"):
            return self._choice(column, "=", "or")
        if self._skip_like():
            return self._beginning(column, (">=", "<"), "and")
        if self._skip("not"):
            if self._skip_like():
                return self._beginning(column, ("<", ">="), "or")
            self._require("in")
            return self._choice(column, "!=", "and")
        if self._token.content not in COMPARISONS:
            raise self._unexpected(f"in, not in, like, is null or one of {' '.join(COMPARISONS)}")
        return Comparison(column, self._take("sign", ""), self._value())

    def _choice(self, column: str, sign: str, word: str) -> Condition:
        self._require("(")
        parts = [Comparison(column, sign, self._value())]
        while self._skip(","):
            parts.append(Comparison(column, sign, self._value()))
        self._require(")")
        return Junction(word, tuple(parts))

    def _beginning(self, column: str, signs: tuple[str, str], word: str) -> Condition:
        """Reads a pattern: compares with the first text that begins so, and the first behind."""
        token, value = self._token, self._value()
        start, wildcard, rest = str(value).partition("%")
        if not isinstance(value, str) or rest or not (start and wildcard) or start[-1] == _LAST:
            raise self._mistake(token.start, "but like takes 'beginning%', with one % at the end")
        # The code points from D800 to DFFF stand for nothing.
        behind = start[:-1] + ("\ue000" if start[-1] == "\ud7ff" else chr(ord(start[-1]) + 1))
        texts = zip(signs, (start, behind), strict=True)
        return Junction(word, tuple(Comparison(column, sign, text) for sign, text in texts))

    def _value(self) -> Any:
        return self._take("value", "a number, a 'text' in quotation marks, true or false")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, wanted: str) -> Any:
        if self._token.kind != kind:
            raise self._unexpected(wanted)
        self._next += 1
        return self._tokens[self._next - 1].content

    def _skip(self, sign: str) -> bool:
        found = self._token.kind == "sign" and self._token.content == sign
        self._next += found
        return found

    def _skip_like(self) -> bool:
        # No word of the grammar, so that a column may have this name.
        found = self._token.kind == "name" and self._token.content.lower() == "like"
        self._next += found
        return found

    def _require(self, sign: str) -> None:
        if not self._skip(sign):
            raise self._unexpected(f"'{sign}'")

    def _unexpected(self, wanted: str) -> UserError:
        return self._mistake(self._token.start, f"but there must be {wanted}")

    def _mistake(self, start: int, reason: str) -> UserError:
        rest = self._text[start:].lstrip()
        found = f"at character {start + 1} is '{shorten(rest, 30)}', " if rest else "it ends here, "
        return UserError("search.where", f"the filter cannot be read: {found}{reason}")


def _meaning(kind: str, word: str) -> tuple[str, Any]:
    """Returns the kind and the content of a token."""
    if kind == "text":
        return "value", word[1:-1].replace(2 * word[0], word[0])
    if kind == "number":
        # More digits than an integer of a column can have are not converted one by one.
        exact = word.lstrip("+-").isdigit() and len(word) < 30
        number = int(word) if exact else float(word)
        return "value", int(number) if number == number // 1 else number
    if kind == "quoted":
        return "name", word[1:-1]
    if kind == "name" and word.lower() in ("true", "false"):
        return "value", word.lower() == "true"
    return ("sign", word.lower()) if word.lower() in _WORDS else (kind, word)
