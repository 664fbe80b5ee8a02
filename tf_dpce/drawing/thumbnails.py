"""Pieces of a contact sheet: wrapped text, and any image file fitted to a box."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tf_dpce.preprocessing.status import MAX_PIXELS

PAPER = "#ffffff"
BOX = "#f1f3f5"
LINE = "#ced4da"
INK = "#212529"
FAINT = "#6c757d"

_LONGEST = 2000  # characters of a text that are drawn at most


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
    words = " ".join(text[:_LONGEST].split())
    words = "".join(sign if sign.isprintable() else "\ufffd" for sign in words)
    lines = [""]
    for word in words.split(" "):
        while face.getlength(f"{lines[-1]} {word}".lstrip()) > width and len(lines[-1] + word) > 1:
            if lines[-1]:
                lines.append("")
                continue
            fits = next(
                n for n in range(len(word), 0, -1) if n == 1 or face.getlength(word[:n]) <= width
            )
            lines[-1], word = word[:fits], word[fits:]
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    if len(lines) > most or len(text) > _LONGEST:
        last = lines[:most][-1]
        while last and face.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last.rstrip() + "…"]
    return lines


def fit(path: Path, width: int, height: int) -> Image.Image | str:
    """Returns an image scaled to touch a box from inside, or the reason why there is none.

    Args:
        path: a file in any format that Pillow reads; of an animation the first frame is taken.
        width: width of the box in pixels.
        height: height of the box in pixels.
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
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    return upright.resize(size, Image.Resampling.LANCZOS)


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


def _flatten(image: Image.Image) -> Image.Image:
    """Returns RGB: 16-bit grey is scaled to 8 bits, transparent parts show the paper."""
    if image.mode.startswith("I"):
        grey = image.convert("I").point(lambda value: value * (255 / 65535))
        return grey.convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, PAPER)
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")
