"""Pieces of a contact sheet: wrapped text, and any image file fitted to a box."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tf_dpce.preprocessing.status import MAX_PIXELS

PAPER = "#ffffff"
MOUNT = "#f1f3f5"
LINE = "#ced4da"
INK = "#212529"
FAINT = "#6c757d"

_LONGEST = 2000  # characters of a text that are looked at
_WHITE_16_BIT = 65535


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans of a size in pixels; it comes with matplotlib, so it is everywhere."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Breaks text into lines, inside a word only where one is wider than a line.

    Args:
        text: anything; white space collapses, what cannot be printed is marked.
        face: the font it will be drawn in.
        width: of a line, in pixels.
        most: number of lines; what does not fit is replaced by an ellipsis.
    """
    printable = "".join(sign if sign.isprintable() else "\ufffd" for sign in _collapse(text))
    lines = [""]
    for piece in _pieces(printable, face, width):
        longer = f"{lines[-1]} {piece}".lstrip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    if len(lines) > most or len(text) > _LONGEST:
        lines = [*lines[: most - 1], _with_ellipsis(lines[:most][-1], face, width)]
    return lines


def fit(path: Path, width: int, height: int) -> Image.Image | str:
    """Returns an image scaled to touch a box from inside, up or down, or why there is none.

    Args:
        path: a file in any format that Pillow reads; of an animation the first frame is taken.
        width: of the box, in pixels.
        height: of the box, in pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    return "too large to show"
                image.draft("RGB", (2 * width, 2 * height))
                upright = _flatten(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "cannot be shown"
    scale = min(width / upright.width, height / upright.height)
    size = (max(1, round(side * scale)) for side in upright.size)
    return upright.resize(tuple(size), Image.Resampling.LANCZOS)


def write_lines(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: list[str],
    face: ImageFont.FreeTypeFont,
    colour: str,
) -> int:
    """Draws lines below one another and returns the height they took."""
    left, top = corner
    for number, line in enumerate(lines):
        draw.text((left, top + number * line_height(face)), line, font=face, fill=colour)
    return len(lines) * line_height(face)


def line_height(face: ImageFont.FreeTypeFont) -> int:
    """Returns the distance between two lines, in pixels."""
    return round(1.35 * face.size)


def _collapse(text: str) -> str:
    return " ".join(text[:_LONGEST].split())


def _pieces(text: str, face: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    for word in text.split(" "):
        while face.getlength(word) > width and len(word) > 1:
            fits = 1
            while face.getlength(word[: fits + 1]) <= width:
                fits += 1
            yield word[:fits]
            word = word[fits:]
        yield word


def _with_ellipsis(line: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    while line and face.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def _flatten(image: Image.Image) -> Image.Image:
    """Returns RGB: 16-bit grey scaled to 8, what is transparent on paper."""
    if image.mode.startswith("I"):
        grey = image.convert("I").point(lambda value: value * (255 / _WHITE_16_BIT))
        return grey.convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, PAPER)
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")
