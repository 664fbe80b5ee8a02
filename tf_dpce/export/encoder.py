"""Vectors in two lines, from a run or from an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers operations that exports contain

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.signatures import Signatures, input_signature
from tf_dpce.export.versions import find_version
from tf_dpce.preprocessing import status
from tf_dpce.training.run import CONFIG_FILE, Run, load_run

_BATCH = 64
_LONGEST_QUOTE = 80

Endpoint = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class Encoder:
    """Embeds pictures and sentences.

    Args:
        encode_image: the endpoint for pictures, of an export or of `Signatures`.
        encode_text: the endpoint for sentences.
        owner: what must live as long as the endpoints, which hold their variables by weak
            references only.
    """

    def __init__(
        self, encode_image: Endpoint, encode_text: Endpoint, owner: object | None = None
    ) -> None:
        self._owner = owner
        self._encode_image = encode_image
        self._encode_text = encode_text
        self.dimension = int(encode_text(tf.constant([], tf.string))["embedding"].shape[1])

    def encode_images(self, items: Sequence[str | Path | bytes]) -> np.ndarray:
        """Embeds pictures.

        Args:
            items: N files, or the bytes of JPEG or PNG files.

        Returns:
            Float32 `[N, D]`, of unit length.

        Raises:
            UserError: a file that cannot be read, or is no picture.
        """
        vectors, codes = self.images(items)
        _refuse(codes, lambda row: _name_picture(items[row], row))
        return vectors

    def encode_texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Embeds sentences.

        Args:
            sentences: N sentences.

        Returns:
            Float32 `[N, D]`, of unit length.

        Raises:
            UserError: a sentence that is empty, or has no word of the vocabulary.
        """
        vectors, codes = self.texts(sentences)
        _refuse(codes, lambda row: f"sentence {row + 1}, {sentences[row][:_LONGEST_QUOTE]!r}")
        return vectors

    def images(self, items: Sequence[str | Path | bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds pictures, and says which could not be.

        Args:
            items: N files, or the bytes of JPEG or PNG files.

        Returns:
            Float32 `[N, D]`, all zeros where the status int32 `[N]` is not
            `tf_dpce.preprocessing.status.OK`.

        Raises:
            UserError: a file that cannot be read.
        """
        return self._in_batches(self._encode_image, _listed(items), _content)

    def texts(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds sentences, and says which could not be.

        Args:
            sentences: N sentences.

        Returns:
            Float32 `[N, D]`, all zeros where the status int32 `[N]` is not
            `tf_dpce.preprocessing.status.OK`.
        """
        return self._in_batches(
            self._encode_text, _listed(sentences), lambda text: text.encode(errors="replace")
        )

    def _in_batches(
        self, endpoint: Endpoint, items: Sequence, content: Callable[..., bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.empty((len(items), self.dimension), np.float32)
        codes = np.empty(len(items), np.int32)
        for start in range(0, len(items), _BATCH):
            rows = slice(start, start + _BATCH)
            answer = endpoint(tf.constant([content(item) for item in items[rows]], tf.string))
            vectors[rows], codes[rows] = answer["embedding"], answer["status"]
        return vectors, codes


def load(path: str | Path, checkpoint: str = "best") -> Encoder:
    """Loads a model, to embed pictures and sentences.

    Args:
        path: the folder of a run, of an exported version (NAME/INTEGER), or of an exported
            model (NAME, whose newest version is taken).
        checkpoint: "best" or "last", where it is a run.

    Raises:
        UserError: there is no model.

    Example:
        >>> encoder = tf_dpce.load("saved_models/flickr8k")
        >>> encoder.encode_texts(["Two dogs play in the snow."]).shape
        (1, 2048)
    """
    folder = Path(path)
    if (folder / CONFIG_FILE).is_file():
        return _of_run(load_run(folder, checkpoint))
    return _of_export(find_version(folder))


def _of_run(run: Run) -> Encoder:
    signatures = Signatures(run.model, run.caption_encoder, run.config.image.squash)
    endpoints = [
        tf.function(
            getattr(signatures, name), input_signature=input_signature(name), autograph=False
        )
        for name in ENDPOINTS
    ]
    return Encoder(*endpoints, owner=signatures)


def _of_export(version: Path) -> Encoder:
    try:
        exported = tf.saved_model.load(str(version))
        return Encoder(exported.encode_image, exported.encode_text, owner=exported)
    except (OSError, AttributeError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{version} cannot be loaded ({reason}): export it again") from error


def _listed(items: Sequence) -> Sequence:
    if isinstance(items, (str, bytes, Path)):
        raise TypeError(f"A list is expected, of one item at least. Received: {type(items)}")
    return items


def _content(item: str | Path | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    try:
        return Path(item).read_bytes()
    except OSError as error:
        raise UserError(f"{item} cannot be read: {error.strerror}") from None


def _name_picture(item: str | Path | bytes, row: int) -> str:
    return f"picture {row + 1}" if isinstance(item, bytes) else str(item)


def _refuse(codes: np.ndarray, name: Callable[[int], str]) -> None:
    bad = np.flatnonzero(codes != status.OK)
    if len(bad):
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{name(bad[0])}: {status.REASONS[codes[bad[0]]]}{others}")
