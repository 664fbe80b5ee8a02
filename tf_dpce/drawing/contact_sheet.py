"""Contact sheets: queries with their hits, drawn into one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tf_dpce.drawing.thumbnails import (
    BOX,
    FAINT,
    INK,
    LINE,
    PAPER,
    fit,
    font,
    line_height,
    wrap,
    write_lines,
)
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

MOST_HITS = 100  # hits of a query that are drawn; the others are counted

_COLUMNS = 5
_SIDE = 208  # of the box of an image
_QUERY_SIDE = 152  # of the box of an image that is the query
_GAP = 16
_MARGIN = 28
_WIDTH = _COLUMNS * _SIDE + (_COLUMNS - 1) * _GAP  # between the margins
_NAME_LINES = 2
_TEXT_LINES = 3
_SCORE_WIDTH = 128  # of rank and score before a text


@dataclass(frozen=True)
class SheetRow:
    """A query with its hits.

    Attributes:
        query: a text, or the path of an image.
        hits: best first, each a `tf_dpce.search.searcher.Hit`; those with a `text` are written,
            the others are images.
    """

    query: str | Path
    hits: Sequence[Any]


def contact_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Draws queries and their hits below one another.

    Images keep their shape in boxes of equal size. An image that is missing or cannot be shown
    becomes a placeholder with its name.

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
    """Makes sure, before a search, that a sheet can have this name.

    Raises:
        UserError: `path` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise UserError("sheet.suffix", f"{path} does not end in .png: a sheet is a PNG", path)


def _row_blocks(row: SheetRow) -> list[Image.Image]:
    """Returns a query and its hits as images of the sheet's width."""
    hits = row.hits[:MOST_HITS]
    images = [hit for hit in hits if hit.text is None]
    blocks = [_image_query(row.query) if isinstance(row.query, Path) else _text_query(row.query)]
    blocks += [_image_hits(images[n : n + _COLUMNS]) for n in range(0, len(images), _COLUMNS)]
    blocks += [_text_hit(hit) for hit in hits if hit.text is not None]
    if len(row.hits) > len(hits):
        blocks.append(_text_block([f"and {len(row.hits) - len(hits):,} more"], font(14), FAINT))
    if not hits:
        blocks.append(_text_block(["nothing found"], font(14), FAINT))
    return [*blocks, _blank(2 * _GAP)]


def _text_query(text: str) -> Image.Image:
    face = font(22, bold=True)
    return _rule(_text_block(wrap(text, face, _WIDTH, 4), face, INK))


def _image_query(path: Path) -> Image.Image:
    block = _blank(_QUERY_SIDE + 2 * _GAP)
    draw = ImageDraw.Draw(block)
    _paste_image(block, path, (0, 0), _QUERY_SIDE)
    left, face = _QUERY_SIDE + _GAP, font(22, bold=True)
    top = write_lines(draw, (left, 0), ["like this image"], font(14), FAINT)
    write_lines(draw, (left, top), wrap(path.name, face, _WIDTH - left, 3), face, INK)
    return _rule(block)


def _image_hits(hits: Sequence[Any]) -> Image.Image:
    heading, name = font(14, bold=True), font(13)
    below = _SIDE + 6 + line_height(heading)
    block = _blank(below + _NAME_LINES * line_height(name) + _GAP)
    draw = ImageDraw.Draw(block)
    for column, hit in enumerate(hits):
        left = column * (_SIDE + _GAP)
        _paste_image(block, Path(hit.path or hit.id), (left, 0), _SIDE)
        draw.text((left, _SIDE + 6), str(hit.rank), font=heading, fill=INK)
        right = (left + _SIDE, _SIDE + 6)
        draw.text(right, f"{hit.score:.3f}", font=name, fill=FAINT, anchor="ra")
        lines = wrap(PurePath(hit.id).name, name, _SIDE, _NAME_LINES)
        write_lines(draw, (left, below), lines, name, INK)
    return block


def _text_hit(hit: Any) -> Image.Image:
    face = font(16)
    lines = wrap(hit.text or "", face, _WIDTH - _SCORE_WIDTH, _TEXT_LINES)
    block = _text_block(lines, face, INK, left=_SCORE_WIDTH)
    draw = ImageDraw.Draw(block)
    draw.text((36, 0), str(hit.rank), font=font(16, bold=True), fill=INK, anchor="ra")
    draw.text((_SCORE_WIDTH - 24, 0), f"{hit.score:.3f}", font=face, fill=FAINT, anchor="ra")
    return block


def _paste_image(block: Image.Image, path: Path, corner: tuple[int, int], side: int) -> None:
    """Draws an image in the middle of its box, or the file's name and why it is not shown."""
    draw = ImageDraw.Draw(block)
    left, top = corner
    edges = (left, top, left + side - 1, top + side - 1)
    draw.rectangle(edges, fill=BOX)
    image = fit(path, side, side)
    if isinstance(image, Image.Image):
        block.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        return
    draw.rectangle(edges, outline=LINE, width=2)
    face = font(13)
    lines = [*wrap(path.name, face, side - 2 * _GAP, 4), f"({image})"]
    middle = top + (side - len(lines) * line_height(face)) // 2
    write_lines(draw, (left + side // 2, middle), lines, face, FAINT, anchor="ma")


def _text_block(
    lines: list[str], face: ImageFont.FreeTypeFont, colour: str, left: int = 0
) -> Image.Image:
    block = _blank(len(lines) * line_height(face) + _GAP // 2)
    write_lines(ImageDraw.Draw(block), (left, 0), lines, face, colour)
    return block


def _rule(block: Image.Image) -> Image.Image:
    """Puts a line above a query, which separates it from the one before."""
    ruled = _blank(_GAP + block.height)
    ImageDraw.Draw(ruled).line((0, 0, _WIDTH, 0), fill=LINE, width=1)
    ruled.paste(block, (0, _GAP))
    return ruled


def _blank(height: int) -> Image.Image:
    return Image.new("RGB", (_WIDTH, height), PAPER)
