"""Contact sheets: queries with their hits, drawn into one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from tf_dpce.drawing.thumbnails import (
    FAINT,
    INK,
    LINE,
    MOUNT,
    PAPER,
    fit,
    font,
    line_height,
    wrap,
    write_lines,
)
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

if TYPE_CHECKING:
    from tf_dpce.search.searcher import Hit

MOST_HITS = 100  # of one query; the rest is counted

_COLUMNS = 5
_SIDE = 208  # of an image's box
_QUERY_SIDE = 152  # of the box of an image that is the query
_GAP = 16
_MARGIN = 28
_WIDTH = _COLUMNS * _SIDE + (_COLUMNS - 1) * _GAP  # between the margins
_NAME_LINES = 2
_TEXT_LINES = 3
_SCORE_WIDTH = 128  # rank and score before a sentence


@dataclass(frozen=True)
class SheetRow:
    """One query with its hits.

    Args:
        query: a sentence, or the path of an image.
        hits: best first.
    """

    query: str | Path
    hits: Sequence[Hit]


def contact_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Draws queries and their hits below one another.

    Images keep their shape in boxes of equal size. An image that is missing or cannot be
    shown becomes a placeholder with its name; a sentence is written out.

    Args:
        rows: one or more.
        path: the PNG to write, atomically.

    Raises:
        UserError: `path` does not end in .png.
    """
    check_sheet(path)
    blocks = [block for row in rows for block in _row_blocks(row)]
    height = sum(block.height for block in blocks) + 2 * _MARGIN
    sheet = Image.new("RGB", (_WIDTH + 2 * _MARGIN, height), PAPER)
    top = _MARGIN
    for block in blocks:
        sheet.paste(block, (_MARGIN, top))
        top += block.height
    with publish_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def check_sheet(path: Path) -> None:
    """Tells at once, before a search, whether a sheet can have this name.

    Raises:
        UserError: `path` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} does not end in .png: a sheet is a PNG")


def _row_blocks(row: SheetRow) -> list[Image.Image]:
    """Returns a query and its hits as images of the sheet's width, to be put below one another."""
    hits = row.hits[:MOST_HITS]
    images = [hit for hit in hits if hit.text is None]
    lines = [images[start : start + _COLUMNS] for start in range(0, len(images), _COLUMNS)]
    blocks = [_image_query(row.query) if isinstance(row.query, Path) else _text_query(row.query)]
    blocks += [_image_hits(line) for line in lines]
    blocks += [_text_hit(hit) for hit in hits if hit.text is not None]
    if len(row.hits) > len(hits):
        blocks.append(_note(f"and {len(row.hits) - len(hits):,} more"))
    if not hits:
        blocks.append(_note("nothing found"))
    return [*blocks, _blank(2 * _GAP)]


def _text_query(text: str) -> Image.Image:
    face = font(22, bold=True)
    lines = wrap(text, face, _WIDTH, 4)
    block = _blank(len(lines) * line_height(face) + 2 * _GAP)
    draw = _ruled(block)
    write_lines(draw, (0, _GAP), lines, face, INK)
    return block


def _image_query(path: Path) -> Image.Image:
    block = _blank(_QUERY_SIDE + 3 * _GAP)
    draw = _ruled(block)
    _mount(block, path, (0, _GAP), _QUERY_SIDE)
    left, face = _QUERY_SIDE + _GAP, font(22, bold=True)
    top = _GAP + write_lines(draw, (left, _GAP), ["like this image"], font(14), FAINT)
    write_lines(draw, (left, top), wrap(path.name, face, _WIDTH - left, 3), face, INK)
    return block


def _image_hits(hits: Sequence[Hit]) -> Image.Image:
    heading, name = font(14, bold=True), font(13)
    caption = 6 + line_height(heading) + _NAME_LINES * line_height(name)
    block = _blank(_SIDE + caption + _GAP)
    draw = ImageDraw.Draw(block)
    for column, hit in enumerate(hits):
        left = column * (_SIDE + _GAP)
        _mount(block, Path(hit.path or hit.id), (left, 0), _SIDE)
        top = _SIDE + 6
        draw.text((left, top), str(hit.rank), font=heading, fill=INK)
        draw.text((left + _SIDE, top), f"{hit.score:.3f}", font=name, fill=FAINT, anchor="ra")
        lines = wrap(PurePath(hit.id).name, name, _SIDE, _NAME_LINES)
        write_lines(draw, (left, top + line_height(heading)), lines, name, INK)
    return block


def _text_hit(hit: Hit) -> Image.Image:
    face = font(16)
    lines = wrap(hit.text or "", face, _WIDTH - _SCORE_WIDTH, _TEXT_LINES)
    block = _blank(len(lines) * line_height(face) + 8)
    draw = ImageDraw.Draw(block)
    draw.text((36, 0), str(hit.rank), font=font(16, bold=True), fill=INK, anchor="ra")
    draw.text((_SCORE_WIDTH - 24, 0), f"{hit.score:.3f}", font=face, fill=FAINT, anchor="ra")
    write_lines(draw, (_SCORE_WIDTH, 0), lines, face, INK)
    return block


def _mount(block: Image.Image, path: Path, corner: tuple[int, int], side: int) -> None:
    """Draws an image in the middle of its box, or why there is none with the file's name."""
    draw = ImageDraw.Draw(block)
    left, top = corner
    draw.rectangle((left, top, left + side - 1, top + side - 1), fill=MOUNT)
    image = fit(path, side, side)
    if isinstance(image, Image.Image):
        middle = (left + (side - image.width) // 2, top + (side - image.height) // 2)
        block.paste(image, middle)
        return
    draw.rectangle((left, top, left + side - 1, top + side - 1), outline=LINE, width=2)
    face = font(13)
    lines = [*wrap(path.name, face, side - 2 * _GAP, 4), f"({image})"]
    centre = top + (side - len(lines) * line_height(face)) // 2
    for number, line in enumerate(lines):
        place = (left + side // 2, centre + number * line_height(face))
        draw.text(place, line, font=face, fill=FAINT, anchor="ma")


def _note(text: str) -> Image.Image:
    face = font(14)
    block = _blank(line_height(face) + 8)
    write_lines(ImageDraw.Draw(block), (0, 0), [text], face, FAINT)
    return block


def _ruled(block: Image.Image) -> ImageDraw.ImageDraw:
    """Draws the line that sets one query apart from the one above."""
    draw = ImageDraw.Draw(block)
    draw.line((0, 0, _WIDTH, 0), fill=LINE, width=1)
    return draw


def _blank(height: int) -> Image.Image:
    return Image.new("RGB", (_WIDTH, height), PAPER)
