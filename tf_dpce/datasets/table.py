"""A user's own images and captions, in a CSV, TSV, JSON Lines or Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tf_dpce.datasets.lines import whole_characters
from tf_dpce.datasets.listing import NO_IMAGE
from tf_dpce.datasets.pair import IN_NO_SPLIT, SPLITS, Pair, Rejected
from tf_dpce.datasets.paths import existing_folder
from tf_dpce.datasets.rows import read_rows
from tf_dpce.datasets.splits import check_split, drawn_splits, image_name, read_split_file
from tf_dpce.errors import UserError

_UNDRAWN = ""


def read_table(
    table: Path, images: Path | None = None, split_file: Path | None = None, seed: int = 0
) -> Iterator[Pair | Rejected]:
    """Reads a table with the columns `image` and `caption`, and optional `split` and `instance`.

    An image has several captions by several rows, or by a list in one (in CSV and TSV: a JSON
    list); a caption repeated for it is kept once. Without a split file or column the split is drawn
    by hash from the seed and the instance, which is the image where there is no such column:
    about 80, 10 and 10 of 100, and none left empty where there are three.

    Args:
        table: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file.
        images: folder that the images' paths start from; the table's own if None.
        split_file: lines of `image<TAB>split`; goes before a column `split`.
        seed: of the drawn split.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image or row that cannot be used.

    Raises:
        UserError: a file is missing or malformed, a split is unknown, or no row can be used.
    """
    images = existing_folder(images or table.parent, "give that of the images as --images")
    splits = read_split_file(split_file) if split_file else None
    reader = _Reader(images, splits)
    rows = read_rows(table, required=("image", "caption"))
    items = [item for where, row in rows for item in reader.items(where, row)]
    if not any(isinstance(item, Pair) and item.caption for item in items):
        raise UserError(f"{table} has no usable row: each needs an image and a caption")
    yield from _with_drawn_splits(items, seed)
    yield from reader.without_caption()


def _with_drawn_splits(items: list[Pair | Rejected], seed: int) -> Iterator[Pair | Rejected]:
    undrawn = [item for item in items if isinstance(item, Pair) and item.split == _UNDRAWN]
    # An image without a caption will be refused, so it fills no split.
    drawn = drawn_splits((item.instance for item in undrawn if item.caption), seed)
    for item in items:
        if isinstance(item, Pair) and item.split == _UNDRAWN:
            yield replace(item, split=drawn.get(item.instance, SPLITS[0]))
        else:
            yield item


@dataclass(slots=True)
class _Told:
    """An image by its only name and path, however many rows name it, and what was said of it."""

    image: str
    path: Path
    # A set of five, the usual number, takes three times the memory of a dict of five.
    captions: dict[str, None] = field(default_factory=dict)


@dataclass
class _Reader:
    """Turns rows into pairs, and remembers what was said of which image."""

    folder: Path
    splits: dict[str, str] | None
    told: dict[str, _Told] = field(default_factory=dict)

    def items(self, where: str, row: dict[str, Any]) -> Iterator[Pair | Rejected]:
        image = image_name(_text(row, "image", where))
        if not image:
            yield Rejected(where, NO_IMAGE)
        elif self.splits is None or image in self.splits:
            yield from self._pairs(where, row, image)
        elif image not in self.told:
            yield Rejected(str(self._told(image).path), IN_NO_SPLIT)

    def without_caption(self) -> Iterator[Rejected]:
        for image in self.splits or ():
            if image not in self.told:
                yield Rejected(str(self.folder / image), "no caption")

    def _pairs(self, where: str, row: dict[str, Any], image: str) -> Iterator[Pair]:
        split = self._split(where, row, image)
        told = self._told(image)
        instance = _text(row, "instance", where) or told.image
        for caption in _captions(row["caption"], where):
            if caption not in told.captions:
                told.captions[caption] = None
                yield Pair(told.image, told.path, caption, split, instance, where)

    def _told(self, image: str) -> _Told:
        if image not in self.told:
            self.told[image] = _Told(image, self.folder / image)
        return self.told[image]

    def _split(self, where: str, row: dict[str, Any], image: str) -> str:
        if self.splits is not None:
            return self.splits[image]
        if "split" in row:
            return check_split(_text(row, "split", where), where)
        return _UNDRAWN


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where}: {column} is {value!r}: it must be text or a whole number")
    return whole_characters(str(value).strip(), f"{where}: {column}")


def _captions(value: Any, where: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value)
    captions = value if isinstance(value, list) else [value]
    if not all(caption is None or isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: caption is {value!r}: it must be text or a list of texts")
    return [whole_characters((text or "").strip(), f"{where}: caption") for text in captions]


def _json_list(value: str) -> Any:
    # A sentence may open with a bracket too.
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
