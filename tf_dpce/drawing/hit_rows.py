"""Queries in rows with their hits, framed as right or wrong; and many thumbnails in one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from tf_dpce.drawing.contact_sheet import (
    FAINT,
    INK,
    LINE,
    PAPER,
    below_one_another,
    font,
    line_height,
    wrap,
    write_lines,
)

RIGHT, WRONG = "#2b8a3e", "#c92a2a"

_SIDE = 96  # of a thumbnail
_FRAME = 4
_GAP = 10
_TEXT_WIDTH = 230
_LINES = 5  # of a text


@dataclass(frozen=True)
class Cell:
    """A hit.

    Attributes:
        shown: a square thumbnail, or a text.
        is_right: whether it belongs to the query.
    """

    shown: Image.Image | str
    is_right: bool


@dataclass(frozen=True)
class HitRow:
    """A query, its hits, and how far down the list the first right item is.

    Attributes:
        query: a text, or a square thumbnail.
        hits: best first.
        rank: rank of the first right item, counted from 1.
    """

    query: Image.Image | str
    hits: Sequence[Cell]
    rank: int


def hit_rows(rows: Sequence[HitRow]) -> Image.Image:
    """Draws queries below one another, each with its hits beside it.

    A right hit has a green frame and a check mark, a wrong one a red frame and a cross, so that
    colours alone are not needed to tell them apart. At the left stands the rank of the first right
    item.

    Args:
        rows: one or more; their hits are all thumbnails, or all texts.
    """
    return below_one_another([_row(row) for row in rows])


def sprite(thumbnails: Sequence[Image.Image], side: int) -> Image.Image:
    """Draws thumbnails row by row into a square grid, as TensorBoard's projector wants them.

    Args:
        thumbnails: one or more squares.
        side: the side of each in the result, in pixels.
    """
    columns = math.ceil(math.sqrt(len(thumbnails)))
    sheet = Image.new("RGB", (columns * side, columns * side), PAPER)
    for number, thumbnail in enumerate(thumbnails):
        row, column = divmod(number, columns)
        sheet.paste(thumbnail.resize((side, side)), (column * side, row * side))
    return sheet


def framed(thumbnail: Image.Image, colour: str, width: int = _FRAME) -> Image.Image:
    """Returns a copy with a frame drawn over its edge."""
    copy = thumbnail.copy()
    edges = (0, 0, copy.width - 1, copy.height - 1)
    ImageDraw.Draw(copy).rectangle(edges, outline=colour, width=width)
    return copy


def _row(row: HitRow) -> Image.Image:
    parts = [_rank(row.rank), _query(row.query), *map(_hit, row.hits)]
    width = sum(part.width + _GAP for part in parts) + _GAP
    block = Image.new("RGB", (width, _SIDE + 2 * _GAP), PAPER)
    left = _GAP
    for part in parts:
        block.paste(part, (left, _GAP))
        left += part.width + _GAP
    ImageDraw.Draw(block).line((0, block.height - 1, width, block.height - 1), fill=LINE)
    return block


def _rank(rank: int) -> Image.Image:
    block, face = Image.new("RGB", (56, _SIDE), PAPER), font(20, bold=True)
    draw = ImageDraw.Draw(block)
    draw.text((28, 18), f"{rank:,}", font=face, fill=INK, anchor="ma")
    draw.text((28, 46), "rank", font=font(12), fill=FAINT, anchor="ma")
    return block


def _query(query: Image.Image | str) -> Image.Image:
    return query if isinstance(query, Image.Image) else _text(query, INK, bold=True)


def _hit(cell: Cell) -> Image.Image:
    colour = RIGHT if cell.is_right else WRONG
    block = cell.shown if isinstance(cell.shown, Image.Image) else _text(cell.shown, INK)
    block = framed(block, colour)
    draw, side = ImageDraw.Draw(block), 20
    corner = (block.width - side, 0, block.width - 1, side - 1)
    draw.rectangle(corner, fill=colour)
    middle = (block.width - side // 2, side // 2)
    mark = "\N{CHECK MARK}" if cell.is_right else "\N{BALLOT X}"
    draw.text(middle, mark, font=font(14, bold=True), fill=PAPER, anchor="mm")
    return block


def _text(text: str, colour: str, bold: bool = False) -> Image.Image:
    block, face = Image.new("RGB", (_TEXT_WIDTH, _SIDE), PAPER), font(13, bold)
    lines = wrap(text, face, _TEXT_WIDTH - 34, _LINES)
    top = (_SIDE - len(lines) * line_height(face)) // 2
    write_lines(ImageDraw.Draw(block), (10, top), lines, face, colour)
    return block
