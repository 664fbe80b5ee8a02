"""Damaged tables: a mistake that the user can mend, or rejected rows, and never a row too few."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.unit.datasets.tables import read, write
from tf_dpce.datasets.listing import Rejected
from tf_dpce.errors import UserError

MUTATIONS = 100
# A page that ends eight rows too early, for which pyarrow has no error.
SHORT_PAGE = 1387
# Two captions an image; no two rows of an image have the same caption.
ROWS = [
    {"image": f"photos/p{n // 2:02}.jpg", "caption": f"a dog, number {n}; it | sleeps\tor not"}
    for n in range(40)
]
PLAIN_ROWS = [row | {"caption": re.sub("[,;|\t]", "", row["caption"])} for row in ROWS]
# The name of the file, its delimiter, and its rows.
FORMS = {
    "csv": ("a.csv", ",", ROWS),
    "csv without quotes": ("b.csv", ",", PLAIN_ROWS),
    "tsv": ("a.tsv", "\t", PLAIN_ROWS),
    "semicolon": ("a.txt", ";", ROWS),
    "bar": ("a.csv", "|", ROWS),
    "bar and space": ("c.csv", "|", [row | {"caption": " a"} | row for row in PLAIN_ROWS]),
    "jsonl": ("a.jsonl", "", ROWS),
    "json": ("a.json", "", ROWS),
    "parquet": ("a.parquet", "", ROWS),
    "packed": ("a.csv.gz", ",", ROWS),
}

# --- mutations ------------------------------------------------------------------------------------


def flip_bits(data: bytearray, rng: random.Random, _: bytes) -> None:
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def insert_quote(data: bytearray, rng: random.Random, delimiter: bytes) -> None:
    place = rng.randrange(len(data))
    if rng.random() < 0.5:
        # Where a field begins it means most.
        place = data.find(delimiter or b":", place) + 1
    data.insert(place, ord('"'))


def on_a_line(change: Callable[[bytes, random.Random, bytes], bytes]):
    def mutate(data: bytearray, rng: random.Random, delimiter: bytes) -> None:
        lines = data.split(b"\n")
        number = rng.randrange(len(lines))
        lines[number] = change(bytes(lines[number]), rng, delimiter)
        data[:] = b"\n".join(lines)

    return mutate


@on_a_line
def cut_line(line: bytes, rng: random.Random, _: bytes) -> bytes:
    return line[: rng.randint(0, len(line))]


@on_a_line
def repeat_line(line: bytes, *_: object) -> bytes:
    return line + b"\n" + line


@on_a_line
def swap_columns(line: bytes, _: random.Random, delimiter: bytes) -> bytes:
    return (delimiter or b",").join(line.split(delimiter or b",")[::-1])


TEXT = [flip_bits, insert_quote, cut_line, repeat_line, swap_columns]


def mutated(data: bytes, seed: int, delimiter: str, of_text: bool) -> bytes:
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        rng.choice(TEXT if of_text else [flip_bits])(changed, rng, delimiter.encode())
    return bytes(changed)


# --- the count ------------------------------------------------------------------------------------


def plain_count(path: Path) -> int:
    """The rows of a table: what pyarrow or json counts, or the lines that are not empty."""
    if path.suffix == ".parquet":
        return parquet.read_metadata(path).num_rows
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    text = data.decode(errors="surrogateescape")
    if path.suffix == ".json":
        return len(json.loads(text))
    lines = [line for line in text.split("\n") if line.strip("\r")]
    return sum(bool(line.strip()) for line in lines) if "jsonl" in path.name else len(lines) - 1


def is_row(item: Rejected, path: Path) -> bool:
    return re.fullmatch(rf"{re.escape(str(path))} (line|row) \d+", item.path) is not None


@pytest.mark.parametrize("form", FORMS)
def test_rows_used_and_rejected_are_all_rows(tmp_path: Path, form: str):
    name, delimiter, rows = FORMS[form]
    path = write(tmp_path / name, rows, delimiter)
    if form == "bar and space":
        path.write_text(path.read_text().replace("|", "| "))
    data = path.read_bytes()
    packed = path.suffix == ".gz"
    whole = damaged = 0
    for seed in (*range(MUTATIONS), SHORT_PAGE):
        inside = packed and seed % 2
        source = gzip.decompress(data) if inside else data
        of_text = path.suffix != ".parquet" and (inside or not packed)
        changed = mutated(source, seed, delimiter, of_text)
        path.write_bytes(gzip.compress(changed) if inside else changed)
        try:
            images, rejected = read(path)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, (seed, error)
            continue
        used = sum(len(image.captions) for image in images)
        places = [item.path for item in rejected]
        assert all(is_row(item, path) for item in rejected), (seed, rejected)
        assert len(set(places)) == len(places), seed
        assert used + len(rejected) == plain_count(path), (seed, used, rejected)
        whole += 1
        damaged += bool(rejected)
    # Otherwise the sum has not been put to the test.
    assert whole > {"json": 5, "parquet": 5, "packed": 30}.get(form, 60)
    assert form in ("json", "parquet") or damaged > (20 if packed else 40)
