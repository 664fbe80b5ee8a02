"""What an exported model computes: raw bytes and raw captions in, unit embeddings out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import keras
import tensorflow as tf

from tf_dpce.config import Resize
from tf_dpce.export import ENDPOINTS
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.trimming import trimming
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS, check
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

# How many images of one request are decoded at a time. Each may take half a gigabyte if it is as
# large as `status.MAX_PIXELS` allows (tests/unit/export/test_largest.py).
_PARALLEL_IMAGES = 4
_WHITE = r"[\s\p{Z}]*"


class ServingModule:
    """Both encoders of a model with all their preprocessing inside.

    Every output is a dict: `embedding` float32 `[B, D]`, of unit length, or all zeros if `status`
    int32 `[B]` is not 0. A bad row never touches the rows beside it. If the tokenizer has words
    with inferred vectors, `encode_text` returns their number in each caption too, `inferred` int32
    `[B]`.

    Args:
        model: the trained model.
        tokenizer: the tokenizer that the model was trained with.
        resize: how images become squares; see `ImageConfig`.
        limits: the most bytes and pixels of an image that is decoded.

    Attributes:
        image_size: S, the side in pixels of the square that the image tower takes.
        dimension: D, the numbers of an embedding.

    Example:
        >>> module = ServingModule(model, tokenizer)
        >>> tf.function(module.encode_text)(tf.constant(["A dog.", ""]))["status"].numpy()
        array([0, 1], dtype=int32)
    """

    def __init__(
        self,
        model: DualPath,
        tokenizer: CaptionTokenizer,
        resize: Resize = "center_crop",
        limits: status.Limits = DEFAULT_LIMITS,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.resize = resize
        self.limits = limits
        self.image_size: int = model.image_encoder.input_shape[1]
        self.dimension: int = model.image_encoder.output_shape[-1]
        self._image_encoder = folded(model.image_encoder)
        self._text_encoder = folded(model.text_encoder)
        self._trim = trimming(model.text_tower)

    def encode_image(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds images, JPEG or PNG bytes `[B]`."""
        with _on_cpu():
            pixels, codes = decode_images(image, self.image_size, self.resize, self.limits)
        return _answer(self._image_encoder, pixels, codes)

    def encode_text(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds captions, UTF-8 `[B]`."""
        with _on_cpu():
            # What is too long is not even split: that would keep the captions beside it waiting.
            too_long = tf.strings.length(text) > status.MAX_CAPTION_BYTES
            ids = self.tokenizer(tf.where(too_long, "", text))
            codes = tf.where(too_long, status.TOO_MANY_BYTES, _caption_status(text, ids))
            counts = {"inferred": self.tokenizer.count_inferred(ids)}
        answer = _answer(self._text_encoder, self._trim(ids), codes)
        return answer | (counts if self.tokenizer.inferred else {})


def input_signature(endpoint: str) -> list[tf.TensorSpec]:
    """Returns what an endpoint takes: strings `[B]`, for any B."""
    return [tf.TensorSpec([None], tf.string, name=ENDPOINTS[endpoint])]


def decode_images(
    contents: tf.Tensor,
    size: int,
    resize: Resize = "center_crop",
    limits: status.Limits = DEFAULT_LIMITS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images so that one that cannot be decoded costs its own row alone.

    Args:
        contents: strings `[B]`, JPEG or PNG bytes; B may be 0.
        size: S, the side of the pixels that the model takes.
        resize: how images become squares; see `ImageConfig`.
        limits: the most bytes and pixels of an image that is decoded.

    Returns:
        Pixels float32 `[B, S, S, 3]`, black if the status int32 `[B]` is not `OK`.
    """

    def decode(row: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        code = check(content, limits)
        black = tf.zeros([size, size, 3])
        pixels = tf.cond(
            code == status.OK, lambda: evaluation_pixels(content, size, resize), lambda: black
        )
        return row, code, pixels

    # A dataset drops the rows that fail. It must not run empty, hence one more row, which is
    # judged by its length alone and so always survives; it is cut off at the end.
    count = tf.size(contents) + 1
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), tf.concat([contents, [""]], 0)))
    decoded = rows.map(decode, num_parallel_calls=_PARALLEL_IMAGES).ignore_errors()
    survivors, codes, pixels = decoded.batch(tf.cast(count, tf.int64)).get_single_element()
    positions = survivors[:, tf.newaxis]
    lost = tf.fill([count], status.UNDECODABLE)
    all_codes = tf.tensor_scatter_nd_update(lost, positions, codes)
    all_pixels = tf.scatter_nd(positions, pixels, tf.stack([count, size, size, 3]))
    return tf.ensure_shape(all_pixels[:-1], [None, size, size, 3]), all_codes[:-1]


def _caption_status(captions: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Returns the status int32 `[B]` of captions `[B]`, given their token ids `[B, T]`."""
    known = tf.reduce_any(ids > 0, axis=1)
    white = tf.strings.regex_full_match(captions, _WHITE)
    unknown = tf.where(white, status.EMPTY, status.NO_KNOWN_WORD)
    return tf.where(known, status.OK, unknown)


def _on_cpu() -> AbstractContextManager:
    # A server with a GPU must leave strings and files in the memory of the CPU. Unlike a device's
    # name, a function also reaches what is traced inside: branches, and maps of datasets.
    if tf.executing_eagerly():
        return nullcontext()
    return tf.compat.v1.device(lambda operation: "/device:CPU:0")


def _answer(encoder: keras.Model, rows: tf.Tensor, codes: tf.Tensor) -> dict[str, tf.Tensor]:
    # TensorFlow's convolutions fail on an empty batch in a Session, which gets one row of zeros.
    count = tf.size(codes)
    missing = [[tf.cast(count == 0, tf.int32), 0], *[[0, 0]] * (rows.shape.rank - 1)]
    embeddings = encoder(tf.pad(rows, missing), training=False)[:count]
    usable = (codes == status.OK)[:, tf.newaxis]
    embeddings = tf.cast(embeddings, tf.float32)
    return {"embedding": tf.where(usable, embeddings, tf.zeros_like(embeddings)), "status": codes}
