"""A user's own images and captions, in a table of any usual form."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from tf_dpce.datasets.cells import Row, read_row
from tf_dpce.datasets.columns import ColumnFinder
from tf_dpce.datasets.delimited import read_delimited
from tf_dpce.datasets.extracted import ExtractedImages
from tf_dpce.datasets.json_table import read_json_table
from tf_dpce.datasets.listing import NO_NAME, Image, Rejected, check_same, usable_images
from tf_dpce.datasets.names import ImageFile, ImageNames
from tf_dpce.datasets.parquet import read_parquet
from tf_dpce.datasets.splits import complete_splits, read_split_file, split_in_name
from tf_dpce.datasets.table_files import DELIMITED, JSON, PARQUET, table_files, table_kind
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath
from tf_dpce.storage import rooted

REPEATED = "captions that its image has already"

_READERS = {DELIMITED: read_delimited, JSON: read_json_table, PARQUET: read_parquet}


def read_table(
    annotations: AnyPath,
    images: AnyPath | None = None,
    split_file: AnyPath | None = None,
    seed: int = 0,
    image_column: str | None = None,
    caption_column: Sequence[str] | None = None,
    extracted: ExtractedImages | None = None,
) -> Iterator[Image | Rejected]:
    """Reads a table with a column of images, columns of captions, and optional `split`, `instance`.

    An image has several captions by several rows, several columns, or a list in a cell. Every row
    becomes part of an image, or a `Rejected` whose path is the place of the row. Without a split
    file or column the split is drawn by hash from the seed and the instance, which is the image if
    there is no such column: about 80, 10 and 10 of 100, and none is left empty if there are three.
    If the files of a table are named after several splits, as in `train-00000-of-00002.parquet`
    and `validation.parquet`, these names count as a column would.

    Args:
        annotations: a CSV, TSV, JSON or Parquet file, a folder of Parquet files, or a pattern.
        images: folder that the images' paths start from; the table's own if None.
        split_file: lines of `image<TAB>split`; replaces a column `split`.
        seed: seed of the drawn split.
        image_column: column of images; None finds it by its name.
        caption_column: columns of captions; None finds them by their names.
        extracted: the folder for images that the table itself holds.

    Yields:
        The images, and a `Rejected` for each image or row that cannot be used. A caption that is
        left out of a row has a `Rejected` too, whose path names its column behind the row.

    Raises:
        UserError: a file is missing or malformed, no image can be used, or the images that the
            table holds have no folder to go to.
    """
    files = table_files(annotations)
    names = ImageNames(images or _common_folder(files))
    splits = read_split_file(split_file, names) if split_file else None
    finder = ColumnFinder(image_column, caption_column or ())
    if extracted:
        # Images are packed already, so that they need about as much room as their table.
        parquet = [file for file in files if table_kind(file) == PARQUET]
        extracted.reserve(sum(file.stat().st_size for file in parquet))
    listing = _Listing(names, extracted)
    by_file = {} if splits else _splits_by_name(files)
    first: Rejected | None = None
    for file in files:
        below = "" if images else os.path.relpath(_images_of(file), names.folder)
        for record in _READERS[table_kind(file)](file, finder):
            row = read_row(record, with_split=splits is None)
            for rejected in listing.add(row, below, by_file.get(file)):
                first = first or rejected
                yield rejected
    found = listing.images()
    if not found:
        place = first.path.removeprefix(f"{annotations} ") if first else ""
        reason = f": {place}: {first.reason}" if first else ""
        message = f"{annotations} has no row that can be used{reason}"
        raise UserError("dataset.no_image", message, annotations)
    if splits is None:
        complete_splits(found, seed)
    yield from usable_images(annotations, found, names, splits, split_file)


class _Listing:
    """The images of a table, each of which gathers its rows."""

    def __init__(self, names: ImageNames, extracted: ExtractedImages | None) -> None:
        self._names = names
        self._extracted = extracted
        self._images: dict[str, Image] = {}
        self._captions: dict[str, dict[str, None]] = {}

    def add(self, row: Row | Rejected, below: str, split: str | None) -> Iterator[Rejected]:
        """Adds a row to its image, and yields what cannot be used of it.

        Args:
            row: the row, if it can be used.
            below: the folder that its image's name starts from, if it is another.
            split: the split of rows that give none.
        """
        if isinstance(row, Rejected):
            yield row
            return
        yield from row.left_out
        name, path = self._file(row, below)
        if not name:
            yield Rejected(str(row.origin), NO_NAME)
            return
        image = Image(name, path, (), row.split or split, row.instance, row.origin)
        check_same(self._images.setdefault(name, image), image)
        captions = self._captions.setdefault(name, {})
        count = len(captions)
        captions.update(dict.fromkeys(row.captions))
        if len(captions) == count:
            yield Rejected(str(row.origin), REPEATED)

    def _file(self, row: Row, below: str) -> ImageFile:
        if row.contents is None:
            return self._names.find(row.image, below)
        if self._extracted is None:
            message = "holds the images themselves: write them into files by pipelines.prepare"
            raise row.origin.error("table.bytes", message)
        path = self._extracted.add(row.image or f"{row.origin.line:07d}", row.contents)
        return ImageFile(path.name, path)

    def images(self) -> list[Image]:
        """Returns the images with their captions."""
        for name, image in self._images.items():
            image.captions = list(self._captions[name])
        return list(self._images.values())


def _common_folder(files: Sequence[AnyPath]) -> AnyPath:
    folders = [rooted(str(file.parent.resolve())) for file in files]
    return files[0].joinpath(os.path.commonpath(folders))


def _images_of(file: AnyPath) -> AnyPath:
    """Returns the folder of a table's images: beside `00000.parquet` img2dataset has `00000`."""
    folder = file.resolve().with_suffix("")
    return folder if folder.is_dir() and folder.name.isdigit() else folder.parent


def _splits_by_name(files: Sequence[AnyPath]) -> dict[AnyPath, str]:
    """Returns the split that each file or its folder is named after, if that makes several."""
    for names in ([file.name for file in files], [file.parent.name for file in files]):
        splits = list(map(split_in_name, names))
        if None not in splits and len(set(splits)) > 1:
            return dict(zip(files, splits, strict=True))
    return {}
