"""Records what a trained model answers, for the examples that go with its export.

The answers come along the path of training and evaluation: preprocessing one by one in a tf.data
set, then the encoders of the model itself, without any of the exported functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_dpce.export.examples import Examples
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS, check
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


def example_images() -> list[bytes]:
    """Draws images of every kind that is accepted, and some that are not."""
    colour, grey = _waves(3), _waves(1)
    alpha, deep = _waves(4), _waves(3).astype(np.uint16) * 257
    jpeg, png = tf.io.encode_jpeg(colour).numpy(), tf.io.encode_png(colour).numpy()
    accepted = [tf.io.encode_jpeg(grey).numpy()]
    accepted += [tf.io.encode_png(pixels).numpy() for pixels in (grey, alpha, deep, colour[:1, :1])]
    # The declared sides of a PNG stand in its bytes 16 to 23.
    vast = png[:16] + b"\x7f\xff\xff\xff" * 2 + png[24:]
    refused = [b"", b"no image", b"GIF89a" + bytes(20), vast, png[:20], jpeg[:-200], jpeg[:4]]
    return [jpeg, png, jpeg + b"trailing", *accepted, *refused]


def example_sentences(words: Sequence[str]) -> list[bytes]:
    """Composes sentences of the vocabulary, and some that are of no use."""
    known = [word.encode() for word in words[:40]]
    unknown = b"x" * (1 + max(map(len, known)))
    return [
        b" ".join(known[:5]),
        b"(" + b", ".join(known[3:9]).upper() + b").",
        b" ".join(known),
        b" ".join([unknown, known[-1], unknown]),
        b"\t" + known[0] + b" \xff\xfe\n",
        known[-1] + b" \x00",
        b"",
        b" \t\n",
        b"...",
        unknown,
        b"\x01\x02\x7f",
        # As long as it may be, and one byte longer.
        known[0] + b" " * (status.MAX_SENTENCE_BYTES - len(known[0])),
        known[0] + b" " * (status.MAX_SENTENCE_BYTES + 1 - len(known[0])),
    ]


def record_examples(
    model: DualPath,
    tokenizer: CaptionTokenizer,
    squash: bool = False,
    limits: status.Limits = DEFAULT_LIMITS,
) -> dict[str, Examples]:
    """Returns the examples of both endpoints of an export.

    Args:
        model: the trained model.
        tokenizer: the one that it was trained with.
        squash: whether images are squashed to squares, as it was trained.
        limits: of images.
    """
    # On the CPU, where they are verified: a GPU rounds its products to fewer digits.
    with tf.device("CPU:0"):
        return {
            "encode_image": _record_images(model, example_images(), squash, limits),
            "encode_text": _record_sentences(model, tokenizer, example_sentences(tokenizer.words)),
        }


def _record_images(
    model: DualPath, contents: Sequence[bytes], squash: bool, limits: status.Limits
) -> Examples:
    encoder = model.image_encoder
    rows = [_evaluated(content, encoder.input_shape[1], squash, limits) for content in contents]
    codes = np.array([code for code, _ in rows], np.int32)
    pixels = tf.stack([pixels for _, pixels in rows if pixels is not None])
    return _examples(contents, encoder(pixels, training=False), codes)


def _evaluated(
    content: bytes, size: int, squash: bool, limits: status.Limits
) -> tuple[int, tf.Tensor | None]:
    """Returns the status of an image, and its pixels where that is `OK`."""
    rows = tf.data.Dataset.from_tensors(content)
    try:
        code = int(rows.map(lambda c: check(c, limits)).get_single_element())
        if code != status.OK:
            return code, None
        return code, rows.map(lambda c: evaluation_pixels(c, size, squash)).get_single_element()
    except tf.errors.InvalidArgumentError:
        return status.UNDECODABLE, None


def _record_sentences(
    model: DualPath, tokenizer: CaptionTokenizer, sentences: Sequence[bytes]
) -> Examples:
    rows = tf.data.Dataset.from_tensor_slices(list(sentences)).batch(len(sentences))
    ids = rows.map(tokenizer).get_single_element()
    codes = [_sentence_status(s, row) for s, row in zip(sentences, ids.numpy(), strict=True)]
    usable = ids[tf.constant(codes) == status.OK]
    vectors = model.text_encoder(usable, training=False)
    return _examples(sentences, vectors, np.array(codes, np.int32))


def _sentence_status(sentence: bytes, ids: np.ndarray) -> int:
    if len(sentence) > status.MAX_SENTENCE_BYTES:
        return status.TOO_MANY_BYTES
    if ids.any():
        return status.OK
    return status.NO_KNOWN_WORD if sentence.strip() else status.EMPTY


def _examples(inputs: Sequence[bytes], vectors: tf.Tensor, codes: np.ndarray) -> Examples:
    embeddings = np.zeros((len(inputs), vectors.shape[1]), np.float32)
    embeddings[codes == status.OK] = tf.cast(vectors, tf.float32).numpy()
    return Examples(tuple(inputs), embeddings, codes)


def _waves(channels: int) -> np.ndarray:
    """Returns smooth uint8 pixels `[72, 96, channels]`, every channel another."""
    rows, columns, channel = np.ogrid[:72, :96, :channels]
    waves = np.sin(rows / 9 + channel) + np.cos(columns / 7 - 2 * channel)
    return np.round(127.5 + 60 * waves).astype(np.uint8)
