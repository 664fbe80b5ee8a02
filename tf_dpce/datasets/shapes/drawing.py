"""Draws a scene as a PNG."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw

from tf_dpce.datasets.shapes import grammar
from tf_dpce.datasets.shapes.scene import Object, Scene

_SUPERSAMPLING = 4
_OUTLINE = 0.8
_OUTLINE_SHADE = 0.55
_ARM = 0.36  # of the cross

_Point = tuple[float, float]


def draw_png(scene: Scene, size: int) -> bytes:
    """Returns a scene as the bytes of a square PNG with sides of `size` pixels."""
    fine = size * _SUPERSAMPLING
    scale = fine / grammar.SIDE
    tints = Image.new("RGB", (1, 2))
    tints.putdata(scene.tints)
    image = tints.resize((fine, fine), Image.Resampling.BILINEAR)
    canvas = ImageDraw.Draw(image)
    for speck in scene.specks:
        centre = (speck.x * scale, speck.y * scale)
        canvas.circle(centre, speck.radius * scale, fill=(speck.grey,) * 3)
    for item in scene.objects:
        _draw(canvas, item, scale)
    stream = io.BytesIO()
    image.reduce(_SUPERSAMPLING).save(stream, format="PNG")
    return stream.getvalue()


def _draw(canvas: ImageDraw.ImageDraw, item: Object, scale: float) -> None:
    red, green, blue = item.rgb
    shade = tuple(round(channel * _OUTLINE_SHADE) for channel in (red, green, blue))
    style = {"fill": item.rgb, "outline": shade, "width": round(_OUTLINE * scale)}
    if item.shape == "circle":
        centre = (item.x * scale, item.y * scale)
        canvas.circle(centre, item.half_side * scale, **style)
        return
    corners = [_point(corner, item, scale) for corner in _CORNERS[item.shape]]
    canvas.polygon(corners, **style)


def _point(corner: _Point, item: Object, scale: float) -> _Point:
    """Turns a corner of the unit shape into a point of the canvas."""
    angle = math.radians(item.degrees)
    x = corner[0] * math.cos(angle) - corner[1] * math.sin(angle)
    y = corner[0] * math.sin(angle) + corner[1] * math.cos(angle)
    return (item.x + x * item.half_side) * scale, (item.y + y * item.half_side) * scale


_CORNERS: dict[str, list[_Point]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "cross": [
        *((-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM)),
        *((_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM)),
    ],
}
