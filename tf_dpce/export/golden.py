"""Golden examples: inputs and what the model answered, by which anybody can check an export later.

The answers come along the path of training and evaluation: preprocessing row by row in a tf.data
pipeline, then the encoders of the model itself, without any of the exported functions. The inputs
are also the warm-up requests, which TF Serving runs before it lets a fresh model answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, SIGNATURES
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.native_noise import without_noise
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import check

EXAMPLES_FILE = "assets.extra/examples.npz"
# The path and the format, a TFRecord of PredictionLog, are TF Serving's own.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


@dataclass(frozen=True)
class Examples:
    """The inputs of one endpoint and what it must answer.

    Attributes:
        inputs: N byte strings.
        embeddings: float32 `[N, D]`.
        statuses: int32 `[N]`.
    """

    inputs: tuple[bytes, ...]
    embeddings: np.ndarray
    statuses: np.ndarray


def save_examples(version: Path, examples: dict[str, Examples]) -> None:
    """Writes the examples of each endpoint as `.npz`, without pickled objects.

    Byte strings are laid end to end beside the offsets where each starts and ends, because a fixed
    width would cut their trailing zero bytes.
    """
    arrays = {}
    for endpoint, example in examples.items():
        lengths = [0, *map(len, example.inputs)]
        arrays[f"{endpoint}.bytes"] = np.frombuffer(b"".join(example.inputs), np.uint8)
        arrays[f"{endpoint}.offsets"] = np.cumsum(lengths, dtype=np.int64)
        arrays[f"{endpoint}.embedding"] = example.embeddings
        arrays[f"{endpoint}.status"] = example.statuses
    path = version / EXAMPLES_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def load_examples(version: Path) -> dict[str, Examples]:
    """Returns the examples of each endpoint of an exported version.

    Raises:
        UserError: if the file is missing or damaged.
    """
    path = version / EXAMPLES_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _read(arrays, name) for name in ENDPOINTS}
    except Exception as error:
        message = f"{path} cannot be read ({error}): export the model again"
        raise UserError("export.examples", message, path) from None


def _read(arrays: np.lib.npyio.NpzFile, endpoint: str) -> Examples:
    content = arrays[f"{endpoint}.bytes"].tobytes()
    offsets = arrays[f"{endpoint}.offsets"]
    inputs = tuple(content[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True))
    return Examples(inputs, arrays[f"{endpoint}.embedding"], arrays[f"{endpoint}.status"])


def example_images() -> list[bytes]:
    """Draws images of every kind that is accepted, and some that are not."""
    colour, grey = _waves(3), _waves(1)
    alpha, deep = _waves(4), _waves(3).astype(np.uint16) * 257
    jpeg, png = tf.io.encode_jpeg(colour).numpy(), tf.io.encode_png(colour).numpy()
    accepted = [tf.io.encode_jpeg(grey).numpy()]
    accepted += [tf.io.encode_png(pixels).numpy() for pixels in (grey, alpha, deep, colour[:1, :1])]
    # Bytes 16 to 23 of a PNG declare its width and height.
    vast = png[:16] + b"\x7f\xff\xff\xff" * 2 + png[24:]
    refused = [b"", b"no image", b"%PDF-1.7", vast, png[:20], jpeg[:-200], jpeg[:4]]
    return [jpeg, png, jpeg + b"trailing", *accepted, *refused]


def example_captions(words: Sequence[str], inferred: int = 0) -> list[bytes]:
    """Composes captions of the vocabulary, and some that cannot be encoded.

    Args:
        words: the vocabulary.
        inferred: how many of the last words have inferred vectors; they get captions of their own.
    """
    known = [word.encode() for word in words[: len(words) - inferred][:40]]
    unknown = b"x" * (1 + max(map(len, known)))
    further = [word.encode() for word in words[len(words) - inferred :]]
    of_inferred = [b" ".join(further[:9]), known[0] + b" " + further[-1]] if further else []
    return [
        *of_inferred,
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
        # As long as a caption may be, and one byte longer.
        known[0] + b" " * (status.MAX_CAPTION_BYTES - len(known[0])),
        known[0] + b" " * (status.MAX_CAPTION_BYTES + 1 - len(known[0])),
    ]


def record_examples(module: ServingModule) -> dict[str, Examples]:
    """Returns the examples of both endpoints, answered by the model that `module` exports."""
    # On the CPU, where they are verified: a GPU rounds its products to fewer digits.
    with tf.device("CPU:0"), without_noise():
        return {
            "encode_image": _record_images(module, example_images()),
            "encode_text": _record_captions(
                module, example_captions(module.tokenizer.words, module.tokenizer.inferred)
            ),
        }


def write_warmup(version: Path, name: str, examples: dict[str, Examples]) -> None:
    """Writes two requests for each signature: its first example alone, and all of them.

    Args:
        version: the folder of the exported version.
        name: the name of the model on the server.
        examples: the golden examples of each endpoint. A request that fails keeps TF Serving from
            loading the model, so these must have been run.
    """
    path = version / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, endpoint in SIGNATURES.items():
            contents = examples[endpoint].inputs
            for batch in (contents[:1], contents):
                request = PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                tensor = tf.make_tensor_proto(list(batch), tf.string)
                request.inputs[ENDPOINTS[endpoint]].CopyFrom(tensor)
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def read_warmup(version: Path) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """Yields the signature and the inputs by name of each request of an exported version.

    Raises:
        tf.errors.OpError: if the file is missing or damaged.
        google.protobuf.message.DecodeError: if a record is no request.
    """
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        inputs = {key: tf.make_ndarray(value).tolist() for key, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs


def _record_images(module: ServingModule, contents: Sequence[bytes]) -> Examples:
    rows = [_evaluated(module, content) for content in contents]
    pixels = tf.stack([pixels for _, pixels in rows if pixels is not None])
    embeddings = module.model.image_encoder(pixels, training=False)
    return _examples(contents, embeddings, [code for code, _ in rows])


def _evaluated(module: ServingModule, content: bytes) -> tuple[int, tf.Tensor | None]:
    """Returns the status of an image, and its pixels if that is `OK`."""
    rows = tf.data.Dataset.from_tensors(content)
    try:
        code = int(rows.map(lambda c: check(c, module.limits)).get_single_element())
        if code != status.OK:
            return code, None
        pixels = rows.map(lambda c: evaluation_pixels(c, module.image_size, module.resize))
        return code, pixels.get_single_element()
    except tf.errors.InvalidArgumentError:
        return status.UNDECODABLE, None


def _record_captions(module: ServingModule, captions: Sequence[bytes]) -> Examples:
    rows = tf.data.Dataset.from_tensor_slices(list(captions)).batch(len(captions))
    ids = rows.map(module.tokenizer).get_single_element()
    codes = [_caption_status(c, row) for c, row in zip(captions, ids.numpy(), strict=True)]
    usable = ids[tf.constant(codes) == status.OK]
    return _examples(captions, module.model.text_encoder(usable, training=False), codes)


def _caption_status(caption: bytes, ids: np.ndarray) -> int:
    if len(caption) > status.MAX_CAPTION_BYTES:
        return status.TOO_MANY_BYTES
    if ids.any():
        return status.OK
    return status.NO_KNOWN_WORD if caption.strip() else status.EMPTY


def _examples(inputs: Sequence[bytes], usable: tf.Tensor, codes: Sequence[int]) -> Examples:
    statuses = np.array(codes, np.int32)
    embeddings = np.zeros((len(inputs), usable.shape[1]), np.float32)
    embeddings[statuses == status.OK] = tf.cast(usable, tf.float32).numpy()
    return Examples(tuple(inputs), embeddings, statuses)


def _waves(channels: int) -> np.ndarray:
    """Returns smooth uint8 pixels `[72, 96, channels]`, with other waves in each channel."""
    rows, columns, channel = np.ogrid[:72, :96, :channels]
    waves = np.sin(rows / 9 + channel) + np.cos(columns / 7 - 2 * channel)
    return np.round(127.5 + 60 * waves).astype(np.uint8)
