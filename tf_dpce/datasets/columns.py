"""Which columns of a table hold the images and the captions: found by their names, or given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tf_dpce.datasets.listing import Origin
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger

# Names of equal right stand together; those of a row count only if no row above has any.
_IMAGE_NAMES = (
    ("image",),
    ("image_path", "image_name", "image_file", "filepath", "file_path", "file_name", "filename"),
    ("path", "file", "img", "img_path", "img_name", "img_file"),
    ("key",),
)
_CAPTION_NAMES = (
    ("caption", "captions"),
    ("text", "texts", "title", "sentence", "sentences", "comment", "comments"),
    ("description", "descriptions", "raw"),
)
CAPTION_NAMES = tuple(name for names in _CAPTION_NAMES for name in names)


class Record(NamedTuple):
    """The cells of a row that matter.

    Attributes:
        origin: the place of the row.
        image: the cell of the image; None if the row has none, as for the other cells.
        captions: name and cell of each column of captions.
        split: the cell of the split.
        instance: the cell of the instance.
        status: whether img2dataset, which names images by a `key`, could download this one.
    """

    origin: Origin
    image: Any
    captions: tuple[tuple[str, Any], ...]
    split: Any = None
    instance: Any = None
    status: Any = None


@dataclass(frozen=True)
class Columns:
    """The columns that a reader takes, by their names in lower case.

    Attributes:
        image: the column of images.
        captions: the columns of captions.
        numbered: whether `captions` is the beginning of names such as `caption_0` and `caption1`.
    """

    image: str
    captions: tuple[str, ...]
    numbered: bool = False

    def record(self, origin: Origin, names: Sequence[str], values: Iterable[Any]) -> Record:
        """Returns the cells of a row whose columns have these names."""
        image = split = instance = status = None
        captions = []
        for name, value in zip(names, values, strict=True):
            plain = plain_name(name)
            if plain == self.image:
                image = value
            elif (_family(plain) if self.numbered else plain) in self.captions:
                captions.append((name, value))
            elif plain == "split":
                # A cell without a value is another thing than no such column.
                split = "" if value is None else value
            elif plain == "instance":
                instance = value
            elif plain == "status" and self.image == "key":
                status = value
        return Record(origin, image, tuple(captions), split, instance, status)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Returns the names of the columns that `record` takes."""
        names = list(names)
        record = self.record(Origin(Path()), names, names)
        cells = (record.image, *dict(record.captions), *record[3:])
        return [name for name in cells if name is not None]


class ColumnFinder:
    """Finds the columns of a table.

    Args:
        image_column: the column of images; None finds it by the usual names.
        caption_columns: the columns of captions; empty finds them by the usual names.
    """

    def __init__(
        self, image_column: str | None = None, caption_columns: Sequence[str] = ()
    ) -> None:
        self.image_column = image_column
        self.caption_columns = caption_columns
        self._stated: set[str] = set()

    def find(self, names: Sequence[str], origin: Origin) -> Columns:
        """Returns the columns of a table with these names.

        Raises:
            UserError: there is no such column, or there are two of equal right.
        """
        plain = [plain_name(name) for name in names]
        image = self._image(names, plain, origin)
        if self.caption_columns:
            captions = tuple(map(plain_name, self.caption_columns))
            missing = [name for name in captions if name not in plain]
            if missing:
                raise _missing(f"no column '{shorten(missing[0])}'", names, origin)
            return Columns(image, captions)
        families = [_family(name) for name in plain if name != image]
        family = _best(families, _CAPTION_NAMES, "--caption-column", origin)
        if not family:
            raise _missing("no column of captions", names, origin, "--caption-column")
        return Columns(image, (family,), numbered=True)

    def state(self, path: Path, columns: Columns, names: Sequence[str], how: str = "") -> None:
        """Logs what is taken from a file, unless another file had the same."""
        record = columns.record(Origin(path), names, names)
        captions = ", ".join(shorten(name) for name, _ in record.captions)
        text = f"images in column {shorten(record.image)}, captions in {captions}{how}"
        if text not in self._stated:
            logger.info(f"{path}: {text}")
        self._stated.add(text)

    def _image(self, names: Sequence[str], plain: Sequence[str], origin: Origin) -> str:
        if self.image_column:
            image = plain_name(self.image_column)
            if image not in plain:
                raise _missing(f"no column '{shorten(image)}'", names, origin)
        else:
            image = _best(plain, _IMAGE_NAMES, "--image-column", origin)
            if not image:
                raise _missing("no column of images", names, origin, "--image-column")
        if plain.count(image) > 1:
            message = f"two columns of the name '{shorten(image)}': rename one"
            raise origin.error("table.ambiguous", message)
        return image


@cache
def plain_name(name: str) -> str:
    """Returns the name of a column as names are compared.

    Example:
        >>> plain_name(" Image Path"), plain_name("file-name")
        ('image_path', 'file_name')
    """
    return re.sub(r"[\s-]+", "_", name.strip().lower())


@cache
def _family(name: str) -> str:
    return re.sub(r"_?\d+$", "", name)


def _best(plain: Iterable[str], ranks: Sequence[Sequence[str]], option: str, origin: Origin) -> str:
    plain = set(plain)
    for names in ranks:
        found = [name for name in names if name in plain]
        if len(found) > 1:
            message = f"both {found[0]} and {found[1]} could be meant: choose one by {option}"
            raise origin.error("table.ambiguous", message)
        if found:
            return found[0]
    return ""


def _missing(what: str, names: Sequence[str], origin: Origin, option: str = "") -> UserError:
    remedy = f": name it by {option}, or add it" if option else ": correct the name"
    return origin.error("table.columns", f"{what} among {shorten(', '.join(names))}{remedy}")
