"""Checks an encoded image by its first bytes, before anything is decoded, in the graph."""

from __future__ import annotations

import tensorflow as tf

from tf_dpce.preprocessing import status

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# A PNG opens with its 8-byte mark, the length and name of the header chunk, then its width.
_PNG_HEADER_BYTES = 33

DEFAULT_LIMITS = status.Limits()


def check(contents: tf.Tensor, limits: status.Limits = DEFAULT_LIMITS) -> tf.Tensor:
    """Checks an encoded image by its length and header, so that no bomb is ever inflated.

    Args:
        contents: scalar string, the bytes of a file.
        limits: the largest size that is accepted.

    Returns:
        int32 scalar of `status`: `EMPTY`, `TOO_MANY_BYTES`, `WRONG_TYPE`, `TOO_MANY_PIXELS`,
        `UNDECODABLE` (a PNG header cut short or without area; more than `status.MAX_PARTS` scans
        or packed texts, which would take minutes) or `OK`. A JPEG header that cannot be parsed
        raises `tf.errors.InvalidArgumentError`, as `image.decode` does.
    """
    length = tf.strings.length(contents)
    jpeg = is_jpeg(contents)
    png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG

    def by_parts() -> tf.Tensor:
        slow = _slow_parts(contents, jpeg) > status.MAX_PARTS
        return tf.where(slow, status.UNDECODABLE, status.OK)

    def by_pixels() -> tf.Tensor:
        pixels = _declared_pixels(contents, jpeg)
        return tf.case(
            [(pixels <= 0, lambda: status.UNDECODABLE)]
            + [(pixels > limits.max_pixels, lambda: status.TOO_MANY_PIXELS)],
            default=by_parts,
        )

    code = tf.case(
        [
            (length == 0, lambda: status.EMPTY),
            (length > limits.max_bytes, lambda: status.TOO_MANY_BYTES),
            (~(jpeg | png), lambda: status.WRONG_TYPE),
        ],
        default=by_pixels,
    )
    return tf.convert_to_tensor(code, tf.int32)


def is_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether the bytes of a file, a scalar string, are those of a JPEG."""
    return tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG


def _declared_pixels(contents: tf.Tensor, of_jpeg: tf.Tensor) -> tf.Tensor:
    def jpeg() -> tf.Tensor:
        shape = tf.cast(tf.io.extract_jpeg_shape(contents), tf.int64)
        return shape[0] * shape[1]

    def png() -> tf.Tensor:
        header = tf.strings.substr(contents, 0, _PNG_HEADER_BYTES)
        # Zeros stand for a header that is cut short.
        short = tf.strings.length(header) < _PNG_HEADER_BYTES
        header = tf.where(short, bytes(_PNG_HEADER_BYTES), header)
        digits = tf.reshape(tf.io.decode_raw(header, tf.uint8)[16:24], [2, 4])
        powers = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
        return tf.reduce_prod(tf.reduce_sum(tf.cast(digits, tf.int64) * powers, axis=1))

    return tf.cond(of_jpeg, jpeg, png)


def _slow_parts(contents: tf.Tensor, of_jpeg: tf.Tensor) -> tf.Tensor:
    """Counts the scans of a JPEG, or the packed texts of a PNG."""
    codes = tf.io.decode_raw(contents, tf.uint8)

    def jpeg() -> tf.Tensor:
        # A scan opens with its mark and a length of 6 + 2n for its n components, so that nothing
        # else in a file looks like it but by chance.
        mark, kind, high, low, count = (codes[i : i - 4 or None] for i in range(5))
        found = (mark == 0xFF) & (kind == 0xDA) & (high == 0) & (low == 6 + 2 * count)
        return tf.math.count_nonzero(found)

    def png() -> tf.Tensor:
        # Of the chunks zTXt and iTXt.
        found = [codes[i : i - 2 or None] == code for i, code in enumerate(b"TXt")]
        return tf.math.count_nonzero(tf.reduce_all(found, axis=0))

    return tf.cond(of_jpeg, jpeg, png)
