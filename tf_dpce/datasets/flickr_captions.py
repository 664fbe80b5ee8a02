"""Token files of Flickr8k and Flickr30k: lines of `NAME.jpg#0<TAB>caption`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tf_dpce.datasets.lines import read_lines
from tf_dpce.datasets.pair import IN_NO_SPLIT, NO_FILE, Pair, Rejected
from tf_dpce.errors import UserError

_FORM = "it needs NAME.jpg#0<TAB>caption"


def read_tokens(
    captions: Path, images: Path, splits: Mapping[str, str], splits_of: Path | None
) -> Iterator[Pair | Rejected]:
    """Reads a token file; every image is an instance of its own.

    An image that cannot be used (it does not exist, its name is malformed, no split lists it, it
    has no caption) is rejected once, however many captions name it.

    Args:
        captions: the token file.
        images: folder of the images, absolute.
        splits: of each image, by its name.
        splits_of: where they are from, for messages; None where they were drawn.

    Yields:
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: the file is missing or not UTF-8, or no line can be used.
    """
    present = {item.name for item in images.iterdir()}
    seen: set[str] = set()
    usable = False
    last: Rejected | None = None
    for number, name, caption in _captions(captions):
        reason = None if caption is None else _reason(name, present, splits)
        if caption is None:
            last = Rejected(f"{captions}:{number}", "no tab between name and caption")
            yield last
        elif reason is None:
            usable = True
            yield Pair(name, images / name, caption, splits[name], name)
        elif name not in seen:
            last = Rejected(str(images / name), reason)
            yield last
        seen.add(name)
    if not usable:
        raise UserError(_why_none(captions, images, last, splits_of))
    yield from (Rejected(str(images / name), "no caption") for name in splits if name not in seen)


def token_names(captions: Path) -> Iterator[str]:
    """Yields the well-formed name of the image of each line that has a caption.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    for _, name, caption in _captions(captions):
        if caption is not None and _well_formed(name):
            yield name


def _why_none(captions: Path, images: Path, last: Rejected | None, splits_of: Path | None) -> str:
    if last is None:
        return f"{captions} has no line: {_FORM}"
    reason = last.reason
    if reason == IN_NO_SPLIT and splits_of:
        reason = f"{IN_NO_SPLIT} of {splits_of}"
    return (
        f"{captions} has no usable line: {_FORM}, and each image a file in {images} and a split; "
        f"the last that failed is {last.path}: {reason}"
    )


def _captions(captions: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yields number, name and caption of each line; no caption where there is no tab."""
    for number, line in read_lines(captions):
        key, tab, caption = line.partition("\t")
        yield number, key.partition("#")[0], caption.strip() if tab else None


def _reason(name: str, present: set[str], splits: Mapping[str, str]) -> str | None:
    if not _well_formed(name):
        return "malformed name"
    if name not in present:
        return NO_FILE
    return None if name in splits else IN_NO_SPLIT


def _well_formed(name: str) -> bool:
    return Path(name).suffix.lower() in (".jpg", ".jpeg")
