"""What an exported model computes: raw bytes and raw sentences in, unit vectors out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import keras
import tensorflow as tf

from tf_dpce.export import ENDPOINTS
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.trimming import trimming
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS, check
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

# Images of one request that are decoded at a time. Each may take half a gigabyte, if it is as
# large as `status.MAX_PIXELS` allows (tests/unit/export/test_largest.py).
_PARALLEL_IMAGES = 4
_WHITE = r"[\s\p{Z}]*"


class Signatures:
    """Both encoders of a model with all their preprocessing inside.

    Every output is a dict: `embedding` float32 `[B, D]`, of unit length, or all zeros where
    `status` int32 `[B]` is not 0. A bad row never touches the rows beside it.

    Args:
        model: the trained model.
        tokenizer: the one that it was trained with.
        squash: whether images are squashed to squares, as it was trained.
        limits: of images.

    Example:
        >>> signatures = Signatures(model, CaptionTokenizer(words, 32, lowercase=True))
        >>> signatures.encode_text(tf.constant(["A dog.", ""]))["status"].numpy()
        array([0, 1], dtype=int32)
    """

    def __init__(
        self,
        model: DualPath,
        tokenizer: CaptionTokenizer,
        squash: bool = False,
        limits: status.Limits = DEFAULT_LIMITS,
    ) -> None:
        self._tokenizer = tokenizer
        self._image_encoder = folded(model.image_encoder)
        self._text_encoder = folded(model.text_encoder)
        self._trim = trimming(model.text_tower)
        self._image_size = self._image_encoder.input_shape[1]
        self._squash = squash
        self._limits = limits

    def encode_image(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds images, JPEG or PNG bytes `[B]`."""
        with _on_host():
            pixels, codes = decode_images(image, self._image_size, self._squash, self._limits)
        return _answer(self._image_encoder, pixels, codes)

    def encode_text(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds sentences, UTF-8 `[B]`."""
        with _on_host():
            # What is too long is not even split: that would keep the sentences beside it waiting.
            too_long = tf.strings.length(text) > status.MAX_SENTENCE_BYTES
            ids = self._tokenizer(tf.where(too_long, "", text))
            codes = tf.where(too_long, status.TOO_MANY_BYTES, text_status(text, ids))
        return _answer(self._text_encoder, self._trim(ids), codes)


def input_signature(endpoint: str) -> list[tf.TensorSpec]:
    """Returns what an endpoint takes: strings `[B]`, for any B."""
    return [tf.TensorSpec([None], tf.string, name=ENDPOINTS[endpoint])]


def decode_images(
    contents: tf.Tensor,
    size: int,
    squash: bool = False,
    limits: status.Limits = DEFAULT_LIMITS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images so that what cannot be decoded costs its own row alone.

    Args:
        contents: strings `[B]`, JPEG or PNG bytes; B may be 0.
        size: S, the side of the pixels that the model takes.
        squash: whether images are squashed to squares, not cut.
        limits: of images.

    Returns:
        Pixels float32 `[B, S, S, 3]`, black where the status int32 `[B]` is not `OK`.
    """

    def decode(row: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        code = check(content, limits)
        black = tf.zeros([size, size, 3])
        pixels = tf.cond(
            code == status.OK, lambda: evaluation_pixels(content, size, squash), lambda: black
        )
        return row, code, pixels

    # A data set drops the rows that fail. It must not run empty, hence one more row, which is
    # judged by its length alone and so always survives; it is cut off at the end.
    count = tf.size(contents) + 1
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), tf.concat([contents, [""]], 0)))
    decoded = rows.map(decode, num_parallel_calls=_PARALLEL_IMAGES).ignore_errors()
    survivors, codes, pixels = decoded.batch(tf.cast(count, tf.int64)).get_single_element()
    places = survivors[:, tf.newaxis]
    lost = tf.fill([count], status.UNDECODABLE)
    all_codes = tf.tensor_scatter_nd_update(lost, places, codes)
    all_pixels = tf.scatter_nd(places, pixels, tf.stack([count, size, size, 3]))
    return tf.ensure_shape(all_pixels[:-1], [None, size, size, 3]), all_codes[:-1]


def text_status(sentences: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Returns the status int32 `[B]` of sentences `[B]`, given their word ids `[B, T]`."""
    known = tf.reduce_any(ids > 0, axis=1)
    white = tf.strings.regex_full_match(sentences, _WHITE)
    unknown = tf.where(white, status.EMPTY, status.NO_KNOWN_WORD)
    return tf.where(known, status.OK, unknown)


def _on_host() -> AbstractContextManager:
    # A server with a GPU must leave strings and files in the memory of the host. Other than a
    # device's name, a function also reaches what is traced inside: branches, and maps of data.
    if tf.executing_eagerly():
        return nullcontext()
    return tf.compat.v1.device(lambda operation: "/device:CPU:0")


def _answer(encoder: keras.Model, rows: tf.Tensor, codes: tf.Tensor) -> dict[str, tf.Tensor]:
    # TensorFlow's convolutions fail on a batch of none in a Session: it gets one row of zeros.
    count = tf.size(codes)
    missing = [[tf.cast(count == 0, tf.int32), 0], *[[0, 0]] * (rows.shape.rank - 1)]
    vectors = encoder(tf.pad(rows, missing), training=False)[:count]
    usable = (codes == status.OK)[:, tf.newaxis]
    vectors = tf.cast(vectors, tf.float32)
    return {"embedding": tf.where(usable, vectors, tf.zeros_like(vectors)), "status": codes}
