"""Which columns of a table hold the images and the captions: found by their names, or given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from tf_dpce.datasets.listing import Origin, Rejected
from tf_dpce.errors import shorten
from tf_dpce.logging import logger

# Names of equal right stand together; those of a row count only if no row above has any.
_USUAL = {
    "image": (
        ("image",),
        (
            *("image_path", "image_name", "image_file"),
            *("filepath", "file_path", "file_name", "filename"),
        ),
        ("path", "file", "img", "img_path", "img_name", "img_file"),
        ("key",),
    ),
    "caption": (
        ("caption", "captions"),
        ("text", "texts", "title", "sentence", "sentences", "comment", "comments"),
        ("description", "descriptions", "raw"),
    ),
}
CAPTION_NAMES = tuple(name for names in _USUAL["caption"] for name in names)
TWICE = "two values of a column"


class Record(NamedTuple):
    """The cells of a row that matter.

    Attributes:
        origin: the place of the row.
        cells: the cells of `image`, `split`, `instance` and `status`, as far as the row has them.
            By a `status` img2dataset says whether it could download an image.
        captions: name and cell of each column of captions.
    """

    origin: Origin
    cells: dict[str, Any]
    captions: list[tuple[str, Any]]


@dataclass(frozen=True)
class Columns:
    """The columns that a reader takes, by their names as `plain_name` writes them.

    Attributes:
        image: the column of images.
        captions: the columns of captions.
        numbered: whether `captions` is the beginning of names such as `caption_0` and `caption1`.
    """

    image: str
    captions: tuple[str, ...]
    numbered: bool = False

    def role(self, name: str) -> str:
        """Returns `image`, `caption`, `split`, `instance` or `status`; empty for other columns."""
        plain = plain_name(name)
        if plain == self.image:
            return "image"
        if (_family(plain) if self.numbered else plain) in self.captions:
            return "caption"
        # Only img2dataset, which names images by a `key`, means what `status` is read for.
        roles = ("split", "instance", *(["status"] if self.image == "key" else []))
        return plain if plain in roles else ""

    def record(
        self, origin: Origin, names: Iterable[str], values: Iterable[Any]
    ) -> Record | Rejected:
        """Returns the cells of a row whose columns have these names."""
        record = Record(origin, {}, [])
        for name, value in zip(names, values, strict=True):
            role = self.role(name)
            if role == "caption":
                record.captions.append((name, value))
            elif role in record.cells:
                return Rejected(str(origin), TWICE)
            elif role:
                record.cells[role] = value
        return record


class ColumnFinder:
    """Finds the columns of a table, and logs once what it found.

    Args:
        image_column: the column of images; None finds it by the usual names.
        caption_columns: the columns of captions; empty finds them by the usual names.
    """

    def __init__(
        self, image_column: str | None = None, caption_columns: Sequence[str] = ()
    ) -> None:
        self._image = plain_name(image_column or "")
        self._captions = tuple(map(plain_name, caption_columns))
        self._stated: set[str] = set()

    def find(self, names: Sequence[str], origin: Origin, how: str = "") -> Columns:
        """Returns the columns of a table with these names.

        Args:
            names: the names of all columns.
            origin: where they stand.
            how: what else the log says of the table.

        Raises:
            UserError: there is no such column, or there are two of equal right.
        """
        columns = self._columns(names, origin)
        roles = [columns.role(name) for name in names]
        for role in ("image", "split", "instance", "status"):
            if roles.count(role) > 1:
                message = f"two columns of the name '{shorten(names[roles.index(role)])}'"
                raise origin.error("table.ambiguous", f"{message}: rename one")
        image = names[roles.index("image")]
        captions = [name for name, role in zip(names, roles, strict=True) if role == "caption"]
        text = f"images in column {shorten(image)}, captions in {shorten(', '.join(captions))}{how}"
        if text not in self._stated:
            logger.info(f"{origin.path}: {text}")
        self._stated.add(text)
        return columns

    def _columns(self, names: Sequence[str], origin: Origin) -> Columns:
        plain = [plain_name(name) for name in names]
        for name in filter(None, (self._image, *self._captions)):
            if name not in plain:
                message = f"no column '{shorten(name)}' among {shorten(', '.join(names))}"
                raise origin.error("table.columns", f"{message}: correct the name")
        image = self._image or _usual("image", plain, names, origin)
        if self._captions:
            return Columns(image, self._captions)
        families = [_family(name) for name in plain if name != image]
        return Columns(image, (_usual("caption", families, names, origin),), numbered=True)


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


def _usual(kind: str, plain: Sequence[str], names: Sequence[str], origin: Origin) -> str:
    """Returns the first of the usual names that a table has."""
    for equals in _USUAL[kind]:
        found = [name for name in equals if name in plain]
        if len(found) > 1:
            message = f"both {found[0]} and {found[1]} could be meant"
            raise origin.error("table.ambiguous", f"{message}: choose one by --{kind}-column")
        if found:
            return found[0]
    message = f"no column of {kind}s among {shorten(', '.join(names))}"
    raise origin.error("table.columns", f"{message}: name it by --{kind}-column, or add it")
