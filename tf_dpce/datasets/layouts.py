"""Recognises the layout of a data set, so that a user need not name it."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tf_dpce.datasets.captions_beside import TEXT_ENDINGS
from tf_dpce.datasets.flickr import FLICKR8K_CAPTIONS, FLICKR30K_CAPTIONS
from tf_dpce.datasets.names import IMAGE_ENDINGS
from tf_dpce.datasets.tar_shards import TAR_ENDINGS
from tf_dpce.errors import UserError

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILES_SEEN = 10_000  # of a folder, until images with a text beside them are found


class Layout(NamedTuple):
    """What was recognised.

    Attributes:
        source: name of the reader.
        options: options of the reader that follow from what was found.
        description: what it is, for the user.
    """

    source: str
    options: dict[str, Path]
    description: str


def recognise(path: Path) -> Layout:
    """Returns the one layout that a file, a folder or a pattern has.

    What data sets are published in counts first; then what tools write: `metadata` files, tar
    shards, texts beside images, a table.

    Raises:
        UserError: nothing was recognised, or more than one layout.
    """
    if not path.is_dir():
        return _of_files(path)
    for checks in (_PUBLISHED, _GENERAL):
        found = [layout for check in checks if (layout := check(path))]
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


def _of_files(path: Path) -> Layout:
    """Recognises a file, or the files of a pattern."""
    names = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)
    if str(path).endswith(TAR_ENDINGS):
        return Layout("shards", {"root": path}, "tar shards")
    if not names:
        message = f"{path} is neither a file nor a folder, and matches none: check --root"
        raise UserError("source.none", message, path)
    if path.suffix.lower() == ".json" and path.is_file():
        with path.open("rb") as stream:
            is_object = stream.read(_FILES_SEEN).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        if path.name.startswith("dataset_"):
            options = {"root": path.parent, "annotations": path}
            return Layout("karpathy", options, "Karpathy's JSON")
        if is_object:
            return Layout("coco", {"annotations": path}, "captions in COCO's JSON")
    return Layout("table", {"annotations": path}, "a table")


def _flickr8k(root: Path) -> Layout | None:
    authors, kaggle = FLICKR8K_CAPTIONS[:-1], FLICKR8K_CAPTIONS[-1]
    if any((root / name).is_file() for name in authors):
        return Layout("flickr8k", {"root": root}, "Flickr8k in its authors' layout")
    if (root / "Images").is_dir() and _begins(root / kaggle, "image,caption"):
        return Layout("flickr8k", {"root": root}, "Flickr8k in Kaggle's layout")
    return None


def _flickr30k(root: Path) -> Layout | None:
    authors, *kaggle = FLICKR30K_CAPTIONS
    if (root / authors).is_file():
        return Layout("flickr30k", {"root": root}, "Flickr30k in its authors' layout")
    if any(_begins(root / name, "image_name") for name in kaggle):
        return Layout("flickr30k", {"root": root}, "Flickr30k in Kaggle's layout")
    return None


def _coco(root: Path) -> Layout | None:
    if (root / "annotations" / "captions_train2014.json").is_file():
        return Layout("mscoco", {"root": root}, "MSCOCO of 2014")
    if any(root.glob("annotations/captions*.json")) or any(root.glob("captions*.json")):
        return Layout("coco", {"root": root}, "captions in COCO's JSON")
    return None


def _karpathy(root: Path) -> Layout | None:
    files = list(root.glob("dataset_*.json"))
    # Beside the files of Flickr8k it is another form of the split.
    if len(files) != 1 or _flickr8k(root) or _flickr30k(root):
        return None
    options = {"root": root, "annotations": files[0]}
    return Layout("karpathy", options, f"Karpathy's {files[0].name}")


def _cuhk_pedes(root: Path) -> Layout | None:
    if (root / "reid_raw.json").is_file():
        return Layout("cuhk_pedes", {"root": root}, "CUHK-PEDES")
    return None


def _metadata(root: Path) -> Layout | None:
    if any((root / name).is_file() or any(root.glob(f"*/{name}")) for name in _METADATA):
        return Layout("table", {"annotations": root}, "a folder of images with metadata files")
    return None


def _shards(root: Path) -> Layout | None:
    if any(any(root.glob(f"{depth}*{end}")) for depth in ("", "*/") for end in TAR_ENDINGS):
        return Layout("shards", {"root": root}, "tar shards")
    return None


def _texts(root: Path) -> Layout | None:
    files = {os.path.splitext(path) for path in islice(_files(root), _FILES_SEEN)}
    images = {stem for stem, end in files if end.lower() in IMAGE_ENDINGS}
    if any(stem in images for stem, end in files if end.lower() in TEXT_ENDINGS):
        return Layout("folder", {"root": root}, "images with a text beside each")
    return None


def _table(root: Path) -> Layout | None:
    if _metadata(root):
        return None
    tables = [path for path in root.iterdir() if _is_table(path)]
    parquet = [*root.glob("*.parquet"), *root.glob("data/*.parquet")]
    if not tables or all(path in parquet for path in tables):
        tables = [root] if any(map(_is_table, parquet)) else []
    if len(tables) != 1:
        return None
    images = {"images": root / "images"} if (root / "images").is_dir() else {}
    return Layout("table", {"annotations": tables[0], **images}, "a table")


def _is_table(path: Path) -> bool:
    """Returns whether a file is a table and no list that img2dataset writes beside its output."""
    stem = path.with_suffix("")
    beside = stem.is_dir() or stem.with_suffix(".tar").is_file()
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    # Other texts than tables are common.
    table = ending in _TABLES or (ending == ".txt" and _begins(path, "image"))
    return table and not beside


def _files(root: Path) -> Iterator[str]:
    return (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)


def _begins(path: Path, header: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.readline(200).decode(errors="replace").lstrip("\ufeff").startswith(header)


_PUBLISHED: tuple[Callable[[Path], Layout | None], ...] = (
    *(_flickr8k, _flickr30k, _coco, _karpathy, _cuhk_pedes),
)
_GENERAL: tuple[Callable[[Path], Layout | None], ...] = (_metadata, _shards, _texts, _table)
