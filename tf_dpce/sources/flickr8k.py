"""Flickr8k in its authors' own layout (Hodosh, Young and Hockenmaier 2013, JAIR 47)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.sources.lines import read_lines
from tf_dpce.sources.pair import Pair, Rejected

IMAGE_FOLDER = "Flicker8k_Dataset"
TEXT_FOLDER = "Flickr8k_text"
CAPTION_FILE = "Flickr8k.token.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def read_flickr8k(
    root: Path, images: Path | None = None, annotations: Path | None = None
) -> Iterator[Pair | Rejected]:
    """Reads the captions of Flickr8k; every picture is an instance of its own.

    A picture that cannot be used (it does not exist, its name is malformed, no split lists it, it
    has no caption) is rejected once, however many captions name it.

    Args:
        root: folder that holds `Flicker8k_Dataset` and `Flickr8k_text`.
        images: folder of pictures, where it is not `root/Flicker8k_Dataset`.
        annotations: folder of text files, where it is not `root/Flickr8k_text`.

    Yields:
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: a folder or file is missing, or no line can be used.
    """
    images = _folder(images or root / IMAGE_FOLDER)
    annotations = _folder(annotations or root / TEXT_FOLDER)
    splits = _read_splits(annotations)
    present = {item.name for item in images.iterdir()}
    captions = annotations / CAPTION_FILE
    seen: set[str] = set()
    usable = False
    for number, line in read_lines(captions):
        key, tab, caption = line.partition("\t")
        name = key.partition("#")[0]
        reason = _reason(name, present, splits) if tab else None
        if not tab:
            yield Rejected(f"{captions}:{number}", "no tab between name and caption")
        elif reason is None:
            usable = True
            yield Pair(name, images / name, caption.strip(), splits[name], name)
        elif name not in seen:
            yield Rejected(str(images / name), reason)
        seen.add(name)
    if not usable:
        raise UserError(f"{captions} has no usable line: it needs NAME.jpg#0<TAB>caption")
    yield from (Rejected(str(images / name), "no caption") for name in splits if name not in seen)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give the one that holds Flickr8k as --root")
    return path.resolve()


def _read_splits(annotations: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, file in SPLIT_FILES.items():
        for number, line in read_lines(annotations / file):
            name = line.strip()
            if splits.setdefault(name, split) != split:
                raise UserError(
                    f"{annotations / file} line {number}: {name} is already in the split "
                    f"{splits[name]!r}; keep it in one"
                )
    return splits


def _reason(name: str, present: set[str], splits: dict[str, str]) -> str | None:
    if Path(name).suffix.lower() not in (".jpg", ".jpeg"):
        return "malformed name"
    if name not in present:
        return "no such file"
    return None if name in splits else "in no split"
