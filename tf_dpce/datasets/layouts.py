"""Recognises the layout of a data set, so that a user need not name it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tf_dpce.datasets.captions_beside import TEXT_ENDINGS
from tf_dpce.datasets.flickr import (
    FLICKR8K_CAPTIONS,
    FLICKR8K_IMAGES,
    FLICKR30K_CAPTIONS,
    FLICKR30K_IMAGES,
)
from tf_dpce.datasets.names import IMAGE_ENDINGS, ImageNames
from tf_dpce.datasets.table_files import split_tables
from tf_dpce.datasets.tar_shards import TAR_ENDINGS
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath, matching, read_part

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# What `prepare` itself leaves in a folder, and may have left beside what it read.
_REJECTED = "rejected.jsonl"
_FILES_SEEN = 10_000  # of a folder, until images with a text beside them are found


class Layout(NamedTuple):
    """What was recognised.

    Attributes:
        source: name of the reader.
        options: options of the reader that follow from what was found.
        description: what it is, for the user.
    """

    source: str
    options: dict[str, AnyPath]
    description: str


def recognise(path: AnyPath) -> Layout:
    """Returns the one layout that a file, a folder or a pattern has.

    What data sets are published in counts first; then what tools write: `metadata` files, tar
    shards, texts beside images, a table.

    Raises:
        UserError: nothing was recognised, or more than one layout.
    """
    if not path.is_dir():
        return _of_files(path)
    found = list(_published(path)) or list(_general(path))
    if len(found) > 1:
        several = " and ".join(f"{layout.description} ({layout.source})" for layout in found)
        message = f"{path} holds {several}: choose one with --source"
        raise UserError("source.several", message, path)
    if found:
        return found[0]
    raise UserError(
        "source.none",
        f"{path} holds no layout of Flickr8k, Flickr30k, COCO, Karpathy or CUHK-PEDES, no metadata "
        "file, no tar shard, no text beside an image and no single table: see docs/datasets.md, "
        "and name one with --source",
        path,
    )


def _of_files(path: AnyPath) -> Layout:
    """Recognises a file, or the files of a pattern."""
    if str(path).endswith(TAR_ENDINGS):
        return Layout("shards", {"root": path}, "tar shards")
    if not path.is_file() and not matching(path):
        message = f"{path} is neither a file nor a folder, and matches none: check --root"
        raise UserError("source.none", message, path)
    if path.suffix.lower() == ".json" and path.is_file():
        if path.name.startswith("dataset_"):
            return _karpathys(path)
        if _begins(path, "{"):
            return Layout("coco", {"annotations": path}, "captions in COCO's JSON")
    return Layout("table", {"annotations": path}, "a table")


def _published(root: AnyPath) -> Iterator[Layout]:
    """Yields the data sets whose files a folder holds under their published names."""
    whole = {"root": root}
    *authors, kaggles = FLICKR8K_CAPTIONS
    flickr8k = any((root / name).is_file() for name in authors) or (
        (root / "Images").is_dir() and _begins(root / kaggles, "image,caption")
    )
    author, *on_kaggle = FLICKR30K_CAPTIONS
    flickr30k = (root / author).is_file() or any(
        _begins(root / name, "image_name") for name in on_kaggle
    )
    if flickr8k:
        yield Layout("flickr8k", whole, "Flickr8k")
    if flickr30k:
        yield Layout("flickr30k", whole, "Flickr30k")
    files = list(root.glob("dataset_*.json"))
    # Beside the images of Flickr it is another form of the split.
    if len(files) == 1 and not flickr8k and not flickr30k:
        yield _karpathys(files[0])
    if (root / "annotations" / "captions_train2014.json").is_file():
        yield Layout("mscoco", whole, "MSCOCO of 2014")
    elif any(root.glob("annotations/captions*.json")) or any(root.glob("captions*.json")):
        yield Layout("coco", whole, "captions in COCO's JSON")
    if (root / "reid_raw.json").is_file():
        yield Layout("cuhk_pedes", whole, "CUHK-PEDES")


def _karpathys(file: AnyPath) -> Layout:
    """The images lie in a folder of Flickr's beside the file, or in those of MSCOCO there."""
    folders = (file.parent / name for name in (*FLICKR8K_IMAGES, *FLICKR30K_IMAGES))
    root = next((path for path in folders if path.is_dir()), file.parent)
    return Layout("karpathy", {"root": root, "annotations": file}, f"Karpathy's {file.name}")


def _general(root: AnyPath) -> Iterator[Layout]:
    """Yields what tools write, and a table of one's own."""
    metadata = any(any(root.glob(f"{d}{name}")) for d in ("", "*/") for name in _METADATA)
    if metadata:
        yield Layout("table", {"annotations": root}, "a folder of images with metadata files")
    if any(any(root.glob(f"{depth}*{end}")) for depth in ("", "*/") for end in TAR_ENDINGS):
        yield Layout("shards", {"root": root}, "tar shards")
    files = {os.path.splitext(path) for path in islice(_files(root), _FILES_SEEN)}
    images = {stem for stem, end in files if end.lower() in IMAGE_ENDINGS}
    if any(stem in images for stem, end in files if end.lower() in TEXT_ENDINGS):
        yield Layout("folder", {"root": root}, "images with a text beside each")
    tables = [] if metadata else _tables(root)
    if len(tables) == 1:
        folder = {"images": root / "images"} if (root / "images").is_dir() else {}
        yield Layout("table", {"annotations": tables[0], **folder}, "a table")


def _tables(root: AnyPath) -> list[AnyPath]:
    """Returns the tables in a folder; the folder itself, if all of them are Parquet."""
    tables = sorted(path for path in root.iterdir() if _is_table(path))
    parquet = [*root.glob("*.parquet"), *root.glob("data/*.parquet")]
    if all(path in parquet for path in tables):
        return [root] if any(map(_is_table, parquet)) else []
    if tables == split_tables(root):
        return [root]
    return tables


def _is_table(path: AnyPath) -> bool:
    """Returns whether a file is a table and no list that img2dataset writes beside its output."""
    stem = path.with_suffix("")
    beside = stem.is_dir() or stem.with_suffix(".tar").is_file()
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    # Other texts than tables are common.
    table = ending in _TABLES or (ending == ".txt" and _begins(path, "image"))
    return table and not beside and path.name != _REJECTED


def _files(root: AnyPath) -> Iterator[str]:
    return (f"{folder}/{name}" for folder, names in ImageNames(root).walk() for name in names)


def _begins(path: AnyPath, header: str) -> bool:
    if not path.is_file():
        return False
    start = read_part(str(path), length=200)
    return start.decode(errors="replace").lstrip("\ufeff").startswith(header)
