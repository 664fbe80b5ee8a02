"""Turns images upright by the orientation in their bytes, in the graph.

A camera stores an image as its sensor saw it, and how it was held as a tag of EXIF. The numbers 1
to 8 stand for the ways to lay a rectangle: 5 to 8 exchange rows and columns, then (or alone) some
are mirrored from left to right, and some from top to bottom.
"""

from __future__ import annotations

from functools import partial

import tensorflow as tf

UPRIGHT = 1
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

# Segments of a JPEG, or chunks of a PNG, that are looked at before its pixels.
_MOST_PARTS = 64
# Where a name must stand for the parts to be looked at: a search is one operation, and walking over
# the parts of a file takes a hundred, which would be half the time of decoding a small image.
_HEAD_BYTES = 2**18
_EXIF = b"Exif\0\0"
# Two bytes, in which a JPEG's markers are read.
_FIRST_MARKER, _START_OF_SCAN, _APP1, _FILLED = 0xFFC0, 0xFFDA, 0xFFE1, 0xFFFF
# Of the directory of a TIFF, which EXIF is: an entry is a tag, a type, a count and a value. One of
# an orientation (0x0112) has the type 3 and the count 1.
_MOST_ENTRIES, _ENTRY_BYTES = 128, 12
_ENTRY = (
    (0x12, 0x01, 3, 0, 1, 0, 0, 0),  # the byte order II, the least byte first
    (0x01, 0x12, 0, 3, 0, 0, 0, 1),  # MM
)

# A function of its own in the graph. Operations of a branch that is not taken cost time as well,
# each a few microseconds, but for what is in a function that is not called.
apart = partial(
    tf.function, autograph=False, experimental_attributes={"_noinline": True}, reduce_retracing=True
)


def jpeg_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a JPEG, int32 from 1 to 8.

    It is the one in the first directory of the first EXIF segment, in either byte order. The tag of
    a thumbnail, or of other metadata, does not count. If anything is damaged, it is 1.

    Args:
        contents: scalar string, any bytes that begin like a JPEG.
    """
    named = tf.size(_split(contents, _EXIF)) > 1
    return tf.cond(named, lambda: _walk_jpeg(contents), lambda: UPRIGHT)


def png_metadata(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the orientation of a PNG, int32 from 1 to 8, and whether it has transparency.

    Args:
        contents: scalar string, any bytes that begin like a PNG.
    """
    colours = _integers(contents, 25, 1, tf.uint8)[0]
    with_alpha = (colours == 4) | (colours == 6)
    before_pixels = _split(contents, b"IDAT")[0]
    named = tf.strings.regex_full_match(before_pixels, r"\C*(eXIf|tRNS)\C*")
    return tf.cond(
        named, lambda: _walk_png(contents, with_alpha), lambda: (tf.constant(UPRIGHT), with_alpha)
    )


def turned(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns stored pixels `[H, W, C]` upright."""
    return tf.cond(orientation == UPRIGHT, lambda: pixels, lambda: _turn(pixels, orientation))


def upright_sides(sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns height and width int32 `[2]` of an upright image, given those that are stored."""
    return tf.where(orientation >= min(_TRANSPOSED), sides[::-1], sides)


def stored_window(window: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Finds a window of an upright image in the stored one.

    Args:
        window: int32 `[4]`, top, left, height and width in the upright image.
        sides: int32 `[2]`, height and width of the upright image.
        orientation: int32, from 1 to 8.

    Returns:
        int32 `[4]`, top, left, height and width among the stored pixels.
    """
    return tf.cond(
        orientation == UPRIGHT, lambda: window, lambda: _turn_window(window, sides, orientation)
    )


@apart
def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    transposed, flips = _steps(orientation)
    laid = tf.cond(transposed, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    return tf.reverse(laid, tf.boolean_mask([0, 1], flips))


@apart
def _turn_window(window: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    transposed, flips = _steps(orientation)
    corner, extent = window[:2], window[2:]
    corner = tf.where(flips, sides - corner - extent, corner)
    stored = tf.stack([corner, extent])
    return tf.reshape(tf.where(transposed, stored[:, ::-1], stored), [4])


def _steps(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether rows and columns are exchanged, and bool `[2]`: which are then reversed."""
    transposed, mirrored, upside_down = (
        tf.reduce_any(orientation == tf.constant(numbers))
        for numbers in (_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN)
    )
    return transposed, tf.stack([upside_down, mirrored])


@apart
def _walk_jpeg(contents: tf.Tensor) -> tf.Tensor:
    def at(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker, size = tf.unstack(_integers(contents, position, 2, tf.uint16))
        return position, marker, size

    def is_other(position: tf.Tensor, marker: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        segment = (marker >= _FIRST_MARKER) & (marker != _START_OF_SCAN)
        exif = (marker == _APP1) & (_piece(contents, position + 4, len(_EXIF)) == _EXIF)
        return segment & ~exif

    def following(position: tf.Tensor, marker: tf.Tensor, size: tf.Tensor) -> tuple:
        # Any number of bytes 0xFF may stand before a marker.
        return at(position + tf.where(marker == _FILLED, 1, 2 + size))

    position, marker, size = tf.while_loop(
        is_other, following, at(tf.constant(2)), maximum_iterations=_MOST_PARTS
    )
    return tf.cond(
        marker == _APP1,
        lambda: _tiff_orientation(contents, position + 4 + len(_EXIF), position + 2 + size),
        lambda: UPRIGHT,
    )


@apart
def _walk_png(contents: tf.Tensor, with_alpha: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    exif, transparency, data = (int.from_bytes(name) for name in (b"eXIf", b"tRNS", b"IDAT"))

    def at(position: tf.Tensor, start: tf.Tensor, end: tf.Tensor, clear: tf.Tensor) -> tuple:
        size, name = tf.unstack(_integers(contents, position, 2, tf.int32))
        start = tf.where(name == exif, position + 8, start)
        end = tf.where(name == exif, position + 8 + size, end)
        return position, size, name, start, end, clear | (name == transparency)

    def is_before_pixels(position: tf.Tensor, size: tf.Tensor, name: tf.Tensor, *_) -> tf.Tensor:
        # A chunk is its length, name and checksum, of 4 bytes each, and its content.
        inside = (size >= 0) & (size < tf.strings.length(contents) - position)
        return inside & (name != data)

    def following(position: tf.Tensor, size: tf.Tensor, _, *found: tf.Tensor) -> tuple:
        return at(position + 12 + size, *found)

    first = at(tf.constant(8), tf.constant(0), tf.constant(0), with_alpha)
    *_, start, end, clear = tf.while_loop(
        is_before_pixels, following, first, maximum_iterations=_MOST_PARTS
    )
    orientation = tf.cond(
        start > 0, lambda: _tiff_orientation(contents, start, end), lambda: UPRIGHT
    )
    return orientation, clear


def _tiff_orientation(contents: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in the first directory of a TIFF in the bytes from start to end."""
    header = _integers(contents, start, 8, tf.uint8)
    little = tf.reduce_all(header[:4] == [*b"II*\0"])
    big = tf.reduce_all(header[:4] == [*b"MM\0*"])

    def number(digits: tf.Tensor) -> tf.Tensor:
        powers = tf.constant([256**place for place in range(digits.shape[-1])], tf.int64)
        ordered = tf.where(little, digits, digits[..., ::-1])
        return tf.reduce_sum(tf.cast(ordered, tf.int64) * powers, axis=-1)

    # An offset of four bytes may point anywhere; at the end there is nothing.
    directory = tf.minimum(tf.cast(start, tf.int64) + number(header[4:]), tf.cast(end, tf.int64))
    directory = tf.cast(directory, tf.int32)
    count = number(_integers(contents, directory, 2, tf.uint8))
    content = _integers(contents, directory + 2, _MOST_ENTRIES * _ENTRY_BYTES, tf.uint8)
    entries = tf.reshape(content, [_MOST_ENTRIES, _ENTRY_BYTES])
    ends = directory + 2 + _ENTRY_BYTES * tf.range(1, _MOST_ENTRIES + 1)
    usable = (ends <= end) & (tf.range(_MOST_ENTRIES, dtype=tf.int64) < count) & (little | big)
    found = usable & tf.reduce_all(entries[:, :8] == tf.where(little, *_ENTRY), axis=1)
    values = tf.boolean_mask(number(entries[:, 8:10]), found)
    orientation = tf.cast(tf.concat([[UPRIGHT], values], axis=0)[-1], tf.int32)
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, UPRIGHT)


def _split(contents: tf.Tensor, name: bytes) -> tf.Tensor:
    """Returns what is before and after the first such name in the head of a file, strings."""
    head = _piece(contents, tf.constant(0), _HEAD_BYTES)
    return tf.raw_ops.StringSplitV2(input=[head], sep=name, maxsplit=1).values


def _integers(contents: tf.Tensor, start: tf.Tensor, count: int, kind: tf.DType) -> tf.Tensor:
    """Returns int32 `[count]` from big-endian bytes; zeros stand for what is beyond the end."""
    length = count * kind.size
    piece = _piece(contents, start, length)
    raw = tf.io.decode_raw(piece, kind, little_endian=False, fixed_length=length)
    return tf.ensure_shape(tf.cast(raw, tf.int32), [count])


def _piece(contents: tf.Tensor, start: tf.Tensor, length: int) -> tf.Tensor:
    return tf.strings.substr(
        contents, tf.clip_by_value(start, 0, tf.strings.length(contents)), length
    )
