"""What the cells of a table mean: names of images, captions, splits and instances."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tf_dpce.datasets.captions_beside import NOT_DOWNLOADED
from tf_dpce.datasets.columns import CAPTION_NAMES, Record, plain_name
from tf_dpce.datasets.listing import NO_CAPTION, NO_NAME, UNKNOWN_SPLIT, Origin, Rejected
from tf_dpce.datasets.splits import known_split
from tf_dpce.errors import shorten

NOT_UTF8 = "not UTF-8: save the table as UTF-8"
HALF_CHARACTER = "half a character"
NUL = "a NUL character"
NO_TEXT = "neither text nor a whole number"
NO_CAPTION_TEXT = "a caption that is no text"
BROKEN_LIST = "a list that cannot be read"
STANDS_FOR_NOTHING = "a mark for a missing caption"

# What pandas reads as missing, and what Excel writes for a formula that failed. A zero, which may
# be the caption of a digit, is none of them.
_NOTHING = frozenset(
    "#n/a;#n/a n/a;#na;-1.#ind;-1.#qnan;-nan;1.#ind;1.#qnan;<na>;n/a;na;nan;none;null;nil;"
    "#name?;#ref!;#value!;#div/0!;#null!;#num!".split(";")
)
# A list of texts or of objects, or an object, as JSON and Python write them.
_LIST_BEGINS = re.compile(r"(?:\[[\s\[]*\{?|\{)\s*['\"]")
_DOWNLOADED = "success"
_LONGEST_NAME = 1024  # bytes; longer ones without a name are an image


@dataclass(slots=True)
class Row:
    """A row that can be used.

    Attributes:
        origin: its place.
        image: the name of the image, as it is written; may be empty if there are `contents`.
        captions: its captions; at least one.
        split: the split that it gives, None if none.
        instance: the instance that it gives, empty if none.
        contents: the bytes of the image, if the table holds them.
        left_out: captions of the row that cannot be used.
    """

    origin: Origin
    image: str
    captions: list[str]
    split: str | None
    instance: str
    contents: bytes | None
    left_out: list[Rejected]


class _BadCell(Exception):
    """Why a cell cannot be used."""


def read_row(record: Record | Rejected, with_split: bool = True) -> Row | Rejected:
    """Returns what a row says, or why it cannot be used.

    Args:
        record: the cells of the row, or why it has none.
        with_split: whether its split counts.
    """
    if isinstance(record, Rejected):
        return record
    try:
        image, contents = _image(record.cells.get("image"))
        if not image and contents is None:
            raise _BadCell(NO_NAME)
        split = None
        if with_split and "split" in record.cells:
            split = known_split(_text(record.cells["split"]))
            if split is None:
                raise _BadCell(UNKNOWN_SPLIT)
        if record.cells.get("status") not in (None, _DOWNLOADED):
            raise _BadCell(NOT_DOWNLOADED)
        captions, left_out = _captions(record)
        instance = _something(_text(record.cells.get("instance")))
    except _BadCell as error:
        return Rejected(str(record.origin), str(error))
    return Row(record.origin, image, captions, split, instance, contents, left_out)


def is_whole(text: str) -> bool:
    """Returns whether UTF-8 can hold a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str:
    """Returns a text, or a whole number as text; empty for a missing value."""
    if isinstance(value, str):
        return _checked(value)
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        # A column of whole numbers, one of which is missing, becomes one of floats in pandas.
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _BadCell(NO_TEXT)
    return str(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _checked(text: str) -> str:
    if "\0" in text:
        raise _BadCell(NUL)
    if not is_whole(text):
        # `surrogateescape` uses these for bytes that are not UTF-8.
        raise _BadCell(NOT_UTF8 if re.search("[\udc80-\udcff]", text) else HALF_CHARACTER)
    return text.strip()


def _something(text: str) -> str:
    return "" if text.lower() in _NOTHING else text


def _image(value: Any) -> tuple[str, bytes | None]:
    """Returns the name and the contents of an image; either may be missing."""
    contents = None
    if isinstance(value, dict):
        contents, value = value.get("bytes"), value.get("path")
    elif isinstance(value, bytes) and not _is_name(value):
        contents, value = value, None
    elif isinstance(value, bytes):
        value = value.decode()
    contents = contents if isinstance(contents, bytes) and contents else None
    name = _something(_text(value))
    # The name of a file may begin or end with a space.
    return (value if name and isinstance(value, str) else name), contents


def _is_name(value: bytes) -> bool:
    try:
        return len(value) <= _LONGEST_NAME and value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _captions(record: Record) -> tuple[list[str], list[Rejected]]:
    captions, left_out = [], []
    for column, value in record.captions:
        for caption in _flat(value):
            if not _something(caption) and caption:
                place = f"{record.origin} {shorten(column)}"
                left_out.append(Rejected(place, STANDS_FOR_NOTHING))
            elif caption:
                captions.append(caption)
    if not captions:
        raise _BadCell(STANDS_FOR_NOTHING if left_out else NO_CAPTION)
    return captions, left_out


def _flat(value: Any, depth: int = 3) -> Iterator[str]:
    """Yields the captions of a cell: a text, a list, a list of lists, a list as text, a struct."""
    if isinstance(value, str):
        value = _list_or_text(value.strip())
    if isinstance(value, dict):
        texts = {plain_name(str(name)): item for name, item in value.items()}
        value = next(([texts[name]] for name in CAPTION_NAMES if name in texts), False)
    if isinstance(value, list) and depth:
        for item in value:
            yield from _flat(item, depth - 1)
    elif isinstance(value, str):
        yield _checked(value)
    elif not _is_missing(value):
        raise _BadCell(NO_CAPTION_TEXT)


def _list_or_text(text: str) -> list[Any] | str:
    """Returns the list that a text is in JSON or Python, or the text if it is none."""
    if text[:1] + text[-1:] in ("[]", "()"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            found = _python_list(text)
        if found is not None:
            return found
    if _LIST_BEGINS.match(text):
        raise _BadCell(BROKEN_LIST)
    return text


def _python_list(text: str) -> list[Any] | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            value = ast.literal_eval(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None
    # NumPy prints a list without commas, and Python would glue its texts together.
    written = sum(token.type == tokenize.STRING for token in tokens)
    if isinstance(value, list | tuple) and written == sum(isinstance(x, str) for x in value):
        return list(value)
    return None
