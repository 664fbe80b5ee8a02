"""Filters pass what a plain reading of them passes, and refuse in one line what they cannot ask."""

from __future__ import annotations

import datetime as dt
import operator
import random
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import dataset

from tests.errors import raises
from tf_dpce.search.queries.filters import Filter

DAY = dt.date(2024, 2, 29)
NOON = dt.datetime(2024, 2, 29, 12)
TEXTS = ["dogs", "it's", 'a "b"', "", "Größe 🐕", "{p0}", "x' or 1=1 --", "\\", "a;b"]
SCHEMA = pa.schema(
    {
        "folder": pa.string(),
        "width": pa.int64(),
        "stars": pa.uint8(),
        "ratio": pa.float64(),
        "seen": pa.bool_(),
        "taken": pa.timestamp("us"),
        "modified": pa.timestamp("ns", "UTC"),
        "day": pa.date32(),
    }
)
COMPARED = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def passed(text: str, rows: list[dict], schema: pa.Schema = SCHEMA) -> list[bool]:
    """What Arrow answers for each row."""
    table = pa.Table.from_pylist(rows, schema)
    expression = Filter.parse(text).to_arrow(schema)
    return dataset.dataset(table).to_table(columns={"passes": expression})["passes"].to_pylist()


# --- random filters beside a plain reference ------------------------------------------------------


class RandomFilters:
    """Rows, and filters each with what it means, made together and never parsed by the test."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def value(self, column: str):
        pick = self.draw.choice
        return {
            "folder": lambda: pick(TEXTS),
            "width": lambda: pick([-1, 0, 640, 2**40]),
            "stars": lambda: pick([0, 3, 255]),
            "ratio": lambda: pick([-0.5, 0.0, 1.5]),
            "seen": lambda: pick([True, False]),
            "taken": lambda: NOON + dt.timedelta(hours=12 * pick(range(-3, 4))),
            "modified": lambda: NOON + dt.timedelta(hours=12 * pick(range(-3, 4))),
            "day": lambda: DAY + dt.timedelta(days=pick(range(-1, 2))),
        }[column]()

    def row(self) -> dict:
        return {
            name: self.value(name) if self.draw.random() < 0.8 else None for name in SCHEMA.names
        }

    def literal(self, column: str) -> tuple[str, object]:
        """A literal, and the value that it stands for; a date if it stands for a whole day."""
        value = self.value(column)
        if column in ("taken", "modified"):
            if self.draw.random() < 0.5:
                return f"'{value.date()}'", value.date()
            return f"'{value.isoformat(' ')}'", value
        if isinstance(value, str):
            quote = self.draw.choice("'\"")
            return quote + value.replace(quote, 2 * quote) + quote, value
        if isinstance(value, dt.date):
            return f"'{value}'", value
        return str(value).lower(), value

    def filter(self, depth: int = 4):
        """A filter's text, and a function that says of a row whether it passes."""
        shape = self.draw.choice(["not", "and", "or", "leaf", "leaf"]) if depth else "leaf"
        if shape == "leaf":
            return self.leaf()
        parts = [self.filter(depth - 1) for _ in range(1 if shape == "not" else 3)]
        texts, tests = [f"({text})" for text, _ in parts], [test for _, test in parts]
        if shape == "not":
            return f"NOT {texts[0]}", lambda row: not tests[0](row)
        every = {"and": all, "or": any}[shape]
        return f" {shape} ".join(texts), lambda row: every(test(row) for test in tests)

    def leaf(self):
        column = self.draw.choice(SCHEMA.names)
        forms = ["compare", "compare", "in", "not in", "is null", "is not null"]
        forms += ["like", "NOT LIKE"] * (column == "folder")
        form = self.draw.choice(forms)
        if form.startswith("is"):
            return f"{column} {form}", lambda row: (row[column] is None) == (form == "is null")
        if form.endswith(("like", "LIKE")):
            begin = self.draw.choice([text[:size] for text in TEXTS for size in (1, 9) if text])
            quoted = begin.replace("'", "''")
            return (
                f"{column} {form} '{quoted}%'",
                lambda row: (
                    row[column] is not None and row[column].startswith(begin) == (form == "like")
                ),
            )
        if form == "compare":
            sign = self.draw.choice(["=", "!="] if column == "seen" else list(COMPARED))
            text, value = self.literal(column)
            return f"{column} {sign} {text}", lambda row: self.compare(row[column], sign, value)
        literals = [self.literal(column) for _ in range(self.draw.choice([1, 3]))]
        texts, values = zip(*literals, strict=True)

        def is_in(row: dict) -> bool:
            found = any(self.compare(row[column], "=", value) for value in values)
            return row[column] is not None and found == (form == "in")

        return f"{column} {form} ({', '.join(texts)})", is_in

    @staticmethod
    def compare(value, sign: str, with_: object) -> bool:
        if value is None:
            return False
        if isinstance(value, dt.datetime) and not isinstance(with_, dt.datetime):
            value = value.date()
        return COMPARED[sign](value, with_)


@pytest.mark.parametrize("seed", range(4))
def test_arrow_passes_what_a_plain_reading_passes(seed: int):
    made = RandomFilters(seed)
    rows = [made.row() for _ in range(60)]
    for _ in range(60):
        text, test = made.filter()
        assert passed(text, rows) == [test(row) for row in rows], text


# --- what single filters mean ---------------------------------------------------------------------


def ids(text: str, column: str, values: list, kind: pa.DataType) -> list[int]:
    schema = pa.schema({column: kind})
    marks = passed(text, [{column: value} for value in values], schema)
    return [number for number, mark in enumerate(marks) if mark]


def test_not_binds_before_and_and_and_before_or():
    widths, kind = [1, 2, 3, None], pa.int64()
    assert ids("width = 1 or width = 2 and width = 3", "width", widths, kind) == [0]
    assert ids("(width = 1 or width = 2) and width = 3", "width", widths, kind) == []
    assert ids("not width = 1 and width < 3", "width", widths, kind) == [1]
    assert ids("not (width = 1 and width < 3)", "width", widths, kind) == [1, 2, 3]


def test_a_date_means_the_whole_day_and_a_time_the_moment():
    values = [
        dt.datetime(2024, 1, 31),
        dt.datetime(2024, 1, 31, 23, 59, 59),
        dt.datetime(2024, 2, 1),
    ]
    for kind in (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin")):
        for text, expected in (
            ("taken = '2024-01-31'", [0, 1]),
            ("taken != '2024-01-31'", [2]),
            ("taken <= '2024-01-31'", [0, 1]),
            ("taken > '2024-01-31'", [2]),
            ("taken < '2024-01-31 00:00'", []),
            ("taken <= '2024-01-31 00:00'", [0]),
            ("taken < '2024-01-31 00:00:00.5'", [0]),
            ("taken in ('2024-02-01', '2024-01-31 23:59:59')", [1, 2]),
            ("taken not in ('2024-02-01')", [0, 1]),
        ):
            assert ids(text, "taken", values, kind) == expected, (text, kind)
    # A zone counts if the column has them: 01:00 in Berlin is midnight of UTC.
    text = "taken = '2024-02-01 01:00+01:00'"
    assert ids(text, "taken", values, pa.timestamp("us", "UTC")) == [2]


def test_like_means_what_begins_so_and_nothing_else():
    values = ["dogs", "dogs/a", "dogs/a/b", "dogs0", "Dogs/a", "dogs\ud7ff", "dogs\ue000", None]
    assert ids("folder like 'dogs/%'", "folder", values, pa.string()) == [1, 2]
    assert ids("folder NOT LIKE 'dogs%'", "folder", values, pa.string()) == [4]
    assert ids("folder like 'dogs\ud7ff%'", "folder", values, pa.string()) == [5]
    assert ids("like like 'a_%'", "like", ["a_b", "ab_"], pa.string()) == [0]


def test_columns_have_any_name_and_any_width():
    assert ids("`a b.c` >= 2", "a b.c", [1, 2], pa.int8()) == [1]
    assert ids("`in` in (1)", "in", [1, 2], pa.int8()) == [0]
    assert ids("größe < 300 and größe > -1", "größe", [1, 255], pa.uint8()) == [0, 1]
    assert ids("n > 5", "n", [2**64 - 1, 1], pa.uint64()) == [0]
    assert ids("ratio = 0.1", "ratio", [0.1, 1.0], pa.float32()) == [0]
    assert ids("bytes >= 1.5e3", "bytes", [1499, 1500], pa.int64()) == [1]
    assert ids("name = 'a'", "name", ["a", "b"], pa.large_string()) == [0]
    assert ids("name in ('b')", "name", ["a", "b"], pa.large_string()) == [1]
    # The name of a file that is no UTF-8, as a shell hands it over and as `embed` stores it.
    assert ids("name = 'caf\udce9'", "name", ["caf\\udce9"], pa.string()) == [0]


def test_milvus_is_given_names_of_columns_and_of_parameters_alone():
    text = "not (folder = 'x\"} or 1' and width not in (1, 2)) or taken >= '1970-01-02'"
    expression, parameters = Filter.parse(text).to_milvus(SCHEMA)
    assert expression == (
        "(not ((c_folder is not null and c_folder == {p0})"
        " and ((c_width is not null and c_width != {p1})"
        " and (c_width is not null and c_width != {p2}))))"
        " or (c_taken is not null and c_taken >= {p3})"
    )
    # A day has 86,400 seconds.
    assert parameters == {"p0": 'x"} or 1', "p1": 1, "p2": 2, "p3": 86_400_000_000}
    expression, parameters = Filter.parse("day < '1970-01-02' and seen = true").to_milvus(SCHEMA)
    assert parameters == {"p0": 86_400_000_000, "p1": True}
    schema = pa.schema({"a or b": pa.int64()})
    expression, _ = Filter.parse("`a or b` = 1").to_milvus(schema)
    assert re.fullmatch(r"(\w+) is not null and \1 == \{p0\}", expression)


# --- mistakes -------------------------------------------------------------------------------------

UNREADABLE = (
    "",
    "width",
    "width >",
    "width > > 1",
    "width == 640",
    "width <> 640",
    "width => 640",
    "width = height",
    "width = null",
    "640 < width",
    "width > 640 and",
    "width > 640 height > 3",
    "(width > 640",
    "width > 640)",
    "width in ()",
    "width in 640",
    "width in (640,)",
    "width not 640",
    "width is 640",
    "folder like dogs",
    "folder like 'dogs'",
    "folder like '%'",
    "folder like '%dogs%'",
    "folder like 640",
    "folder like '\U0010ffff%'",
    "folder = 'dogs",
    "folder = dogs'",
    "folder = ‘dogs’",
    "width > 640; drop table images",
    "width > 640 -- and",
    "and",
    "not",
    "width > 1_000",
    "folder = 'a'\0",
    "é" * 5000,
    "(" * 1000 + "width > 1" + ")" * 1000,
    "not " * 1000 + "width > 1",
    "width > 1 " * 200_000,
    " or ".join(["width > 1"] * 1_000),
    "'" * 1_000_000,
    "width in (" + "1," * 4_000,
)


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:20] or "empty")
def test_what_is_no_filter_is_refused_in_one_line(text: str):
    with raises("search.where") as error:
        Filter.parse(text)
    assert len(str(error.value)) < 250


UNFIT = (
    "widht > 640",
    "width > '640'",
    "width > true",
    "width > 1.5",
    "width < 1e999",
    f"width < {10**20}",
    f"width < {'9' * 5000}",
    "stars in (1, '2')",
    "folder = 1",
    "folder < true",
    "ratio = 'x'",
    "seen = 1",
    "seen > false",
    "taken > 2024",
    "taken > '2024'",
    "taken > 'yesterday'",
    "taken > '2024-02-30'",
    "taken > '2024-01-01 12:00+01:00'",
    "taken <= '9999-12-31'",
    "modified > '1600-01-01'",
    "day = '2024-01-01 12:00'",
)


@pytest.mark.parametrize("text", UNFIT, ids=lambda text: text[:30])
def test_what_does_not_fit_the_columns_is_refused_and_no_empty_answer(text: str):
    for whole in (text, f"width > 1 or not ({text})"):
        read = Filter.parse(whole)
        for refused in (read.check, read.to_arrow, read.to_milvus):
            with raises("search.where") as error:
                refused(SCHEMA)
            assert len(str(error.value)) < 250
    with raises("search.where"):
        Filter.parse("tags = 'a'").check(pa.schema({"tags": pa.list_(pa.string())}))


def test_a_column_that_is_missing_is_answered_with_those_that_are_near():
    with raises("search.where") as error:
        Filter.parse("widht > 640").check(SCHEMA)
    listed = str(error.value).split("but ")[1].split(", ")
    assert (listed[0], sorted(listed)) == ("width", sorted(SCHEMA.names))
    many = pa.schema({f"column {number}": pa.int64() for number in range(10_000)})
    with raises("search.where") as error:
        Filter.parse("widht > 640").check(many)
    assert len(str(error.value)) < 1000


def test_a_long_filter_is_no_deep_one(tmp_path: Path):
    # As many comparisons as fit: Arrow must not walk them by recursion.
    text = " or ".join(f"width={number}" for number in range(700))
    rows = [{"width": width} for width in (0, 699, 700)]
    assert len(text) < 10_000
    assert passed(text, rows) == [True, True, False]
    assert passed("not " * 50 + "width = 0", rows) == [True, False, False]
