"""Tables whose fields stand between delimiters: CSV, TSV and their relatives."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tf_dpce.datasets.cells import is_whole
from tf_dpce.datasets.columns import ColumnFinder, Columns, Record, plain_name
from tf_dpce.datasets.listing import Origin, Rejected
from tf_dpce.datasets.names import is_image
from tf_dpce.datasets.table_files import text_lines
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath

WRONG_FIELDS = "more or fewer fields than the header: is a field with a delimiter not quoted?"
UNCLOSED = "a quote that is not closed"
MALFORMED = "quotes or line ends in the wrong place"

_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)

# Characters that `csv.reader` does not just take, apart from delimiters.
_NOT_PLAIN = re.compile('["\r\0]')
_NOT_CLOSED = "unexpected end of data"  # as the csv module says

Line = tuple[Origin, str]


class _Header(NamedTuple):
    names: list[str]
    columns: Columns
    delimiter: str
    spaced: bool  # whether a space follows each delimiter
    literal: bool  # whether a line whose quotes break the rules has them as characters


def read_delimited(path: AnyPath, finder: ColumnFinder) -> Iterator[Record | Rejected]:
    """Yields each row of a table, or a `Rejected` for what is no row; an empty line is none.

    The delimiter is found from the header: `,`, `;`, tab or `|`. A field in double quotes may hold
    the delimiter, line ends, and quotes that are doubled. A quote that is not closed costs the row
    in which it opens, and no row after it. With tab, and with a bar and a space, it costs nothing:
    it is a character of its line.

    Raises:
        UserError: the header lacks a column, or the file cannot be read to its end.
    """
    lines = (line for line in text_lines(path) if line[1])
    header = _read_header(lines, finder)
    if header is None:
        return
    for origin, fields in _rows(lines, header):
        if isinstance(fields, str):
            yield Rejected(str(origin), fields)
        elif len(fields) != len(header.names):
            yield Rejected(str(origin), WRONG_FIELDS)
        else:
            yield header.columns.record(origin, header.names, fields)


def _read_header(lines: Iterator[Line], finder: ColumnFinder) -> _Header | None:
    delimiters = _DELIMITERS
    first = next(lines, None)
    if first and (sep := _SEP_LINE.fullmatch(first[1])):
        delimiters, first = sep.group(1), next(lines, None)
    if first is None:
        return None
    origin, line = first
    if "\0" in line or not is_whole(line):
        raise origin.error("dataset.encoding", "not UTF-8: save it as UTF-8")
    split = {one: [name.strip() for name in _split(line, one)] for one in delimiters}
    # At most one makes known columns. If none does, the error is of that which makes the most.
    fault = None
    for one in sorted(delimiters, key=lambda one: -len(split[one])):
        how = f", fields separated by {one}".replace("\t", "tabs")
        spaced = f"{one} " in line
        try:
            columns = finder.find(split[one], origin, how)
        except UserError as error:
            fault = fault or error
        else:
            literal = one == "\t" or (one == "|" and spaced)
            return _Header(split[one], columns, one, spaced, literal)
    raise fault


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _rows(lines: Iterator[Line], header: _Header) -> Iterator[tuple[Origin, list[str] | str]]:
    """Yields the place and the fields of each row, or why it is none."""
    feed = _Feed(lines, header)
    reader = csv.reader(
        feed, delimiter=header.delimiter, skipinitialspace=header.spaced, strict=True
    )
    while True:
        feed.taken.clear()
        try:
            fields: list[str] | str = feed.unquoted() or next(reader)
            feed.note(fields)
        except StopIteration:
            return
        except csv.Error as error:
            closed = len(feed.taken) == 1 and _NOT_CLOSED not in str(error)
            fields = MALFORMED if closed else UNCLOSED
            feed.take_back()
            if header.literal:
                fields = feed.taken[0][1].split(header.delimiter)
        if header.literal:
            fields = [field.strip() for field in fields]
        yield feed.taken[0][0], fields


class _Feed:
    """Hands lines to `csv.reader`, and takes back those behind a quote that is not closed."""

    def __init__(self, lines: Iterator[Line], header: _Header) -> None:
        self.taken: list[Line] = []  # the lines of this row
        self._lines = lines
        self._again: deque[Line] = deque()
        self._header = header
        self._image = [plain_name(name) for name in header.names].index(header.columns.image)
        self._name = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def _next(self) -> Line:
        return self._again.popleft() if self._again else next(self._lines)

    def unquoted(self) -> list[str] | None:
        """Takes a line that has no quotes, in less time than `csv.reader`; None leaves it there."""
        line = self._next()
        if _NOT_PLAIN.search(line[1]) or len(line[1]) > csv.field_size_limit():
            self._again.appendleft(line)
            return None
        self.taken.append(line)
        fields = line[1].split(self._header.delimiter)
        return [field.lstrip(" ") for field in fields] if self._header.spaced else fields

    def __next__(self) -> str:
        line = self._next()
        if self.taken and self._is_row(line[1]):
            self._again.appendleft(line)
            raise csv.Error(_NOT_CLOSED)
        self.taken.append(line)
        return line[1] + "\n"

    def take_back(self) -> None:
        """Hands out again all lines of this row but its first."""
        self._again.extendleft(reversed(self.taken[1:]))

    def note(self, fields: list[str]) -> None:
        """Remembers a name of an image, because others are built alike."""
        if len(fields) == len(self._header.names):
            self._name = fields[self._image]

    def _is_row(self, line: str) -> bool:
        """Returns whether a line has the shape of a row, though it stands inside quotes."""
        count = len(self._header.names)
        if self._header.literal:
            return line.count(self._header.delimiter) >= count - 1
        fields = _split(line, self._header.delimiter)
        # Damaged rows have more or fewer fields, so that the place counts from either end.
        places = {self._image, self._image - count + len(fields)}
        names = [fields[place].strip() for place in places if 0 <= place < len(fields)]
        # A caption may have a comma in its second line, but hardly the name of an image there.
        if (shape := _shape(self._name)) and shape in map(_shape, names):
            return True
        return len(fields) >= count and any(map(is_image, names))


def _shape(name: str) -> str:
    """Returns how a name is built, such as `a/a0.a`; empty if it could be any word."""
    shape = re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", name.strip()))
    return shape if re.search(r"[0./]", shape) else ""
