"""Contact sheets: queries with their hits, drawn into one PNG."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from tf_dpce.drawing.thumbnails import shown_image
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, read_at_most
from tf_dpce.preprocessing.status import MAX_BYTES

if TYPE_CHECKING:
    from tf_dpce.search.answer import Hit

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

PAPER = "#ffffff"
BOX = "#f1f3f5"
LINE = "#ced4da"
INK = "#212529"
FAINT = "#6c757d"

_LONGEST = 2000  # characters of a text that are drawn at most


@dataclass(frozen=True)
class SheetRow:
    """A query with its hits.

    Attributes:
        query: a text, or the path of an image.
        hits: best first; those with a `text` are written, the others are images.
    """

    query: str | Path
    hits: Sequence[Hit]


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
    with publish_file(path) as temporary:
        below_one_another(blocks, _MARGIN).save(temporary, format="PNG")


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


def _image_hits(hits: Sequence[Hit]) -> Image.Image:
    heading, name = font(14, bold=True), font(13)
    below = _SIDE + 6 + line_height(heading)
    block = _blank(below + _NAME_LINES * line_height(name) + _GAP)
    draw = ImageDraw.Draw(block)
    for column, hit in enumerate(hits):
        left = column * (_SIDE + _GAP)
        _paste_image(block, Path(hit.path or hit.id), (left, 0), _SIDE)
        draw.text((left, _SIDE + 6), str(hit.rank), font=heading, fill=INK)
        right = (left + _SIDE, _SIDE + 6)
        hidden = f"+{len(hit.duplicates):,}   " if hit.duplicates else ""
        draw.text(right, hidden + _goodness(hit), font=name, fill=FAINT, anchor="ra")
        lines = wrap(PurePath(hit.id).name, name, _SIDE, _NAME_LINES)
        write_lines(draw, (left, below), lines, name, INK)
    return block


def _text_hit(hit: Hit) -> Image.Image:
    face = font(16)
    lines = wrap(hit.text or "", face, _WIDTH - _SCORE_WIDTH, _TEXT_LINES)
    block = _text_block(lines, face, INK, left=_SCORE_WIDTH)
    draw = ImageDraw.Draw(block)
    draw.text((36, 0), str(hit.rank), font=font(16, bold=True), fill=INK, anchor="ra")
    draw.text((_SCORE_WIDTH - 24, 0), _goodness(hit), font=face, fill=FAINT, anchor="ra")
    return block


def _goodness(hit: Hit) -> str:
    """Returns the probability of a hit, which says more than its score, or else the score."""
    return f"{hit.score:.3f}" if hit.probability is None else f"{100 * hit.probability:.0f} %"


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


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans of a size in pixels, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Breaks text into lines; a word is broken only if it is wider than a line.

    Args:
        text: any text; white space collapses, and what cannot be printed is marked.
        face: font in which it will be drawn.
        width: width of a line in pixels.
        most: number of lines; an ellipsis replaces what does not fit.
    """
    rest = " ".join(text[:_LONGEST].split())
    rest = "".join(sign if sign.isprintable() else "\ufffd" for sign in rest)
    lines = []
    while rest:
        ends = range(1, len(rest) + 1)
        end = max(1, bisect_right(ends, width, key=lambda n: face.getlength(rest[:n])))
        if end < len(rest) and " " in rest[: end + 1]:
            end = rest.rindex(" ", 0, end + 1)
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    if lines and (len(lines) > most or len(text) > _LONGEST):
        lines = lines[:most]
        while face.getlength(lines[-1] + "…") > width:
            lines[-1] = lines[-1][:-1].rstrip()
        lines[-1] += "…"
    return lines


def fit(path: Path, width: int, height: int) -> Image.Image | str:
    """Returns an image scaled to touch a box from inside, or the reason why there is none.

    It shows what the model sees, except that the model may see no more than the centred square.

    Args:
        path: a file of any kind that `embed` takes; of an animation the first frame is taken.
        width: width of the box in pixels.
        height: height of the box in pixels.
    """
    try:
        with path.open("rb") as stream:
            image = shown_image(read_at_most(stream, MAX_BYTES + 1))
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "cannot be shown"
    if isinstance(image, str):
        return image
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def below_one_another(blocks: Sequence[Image.Image], margin: int = 0) -> Image.Image:
    """Returns one image of several, below one another, with a margin around all of them."""
    width, height = max(each.width for each in blocks), sum(each.height for each in blocks)
    sheet = Image.new("RGB", (width + 2 * margin, height + 2 * margin), PAPER)
    top = margin
    for block in blocks:
        sheet.paste(block, (margin, top))
        top += block.height
    return sheet


def write_lines(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: list[str],
    face: ImageFont.FreeTypeFont,
    colour: str,
    anchor: str = "la",
) -> int:
    """Draws lines below one another and returns the height that they take, in pixels."""
    left, top = corner
    for number, line in enumerate(lines):
        place = (left, top + number * line_height(face))
        draw.text(place, line, font=face, fill=colour, anchor=anchor)
    return len(lines) * line_height(face)


def line_height(face: ImageFont.FreeTypeFont) -> int:
    """Returns the distance between two lines, in pixels."""
    return round(1.35 * face.size)
