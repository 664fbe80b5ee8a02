"""Vectors in two lines, from a run or from an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers operations that exports contain

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.answering import one_line
from tf_dpce.export.embedder import Answer, Embedder, Limits
from tf_dpce.export.signatures import Signatures, input_signature
from tf_dpce.export.versions import find_version
from tf_dpce.training.run_folder import CONFIG_FILE, Run, load_run

_BATCH = 64
# TensorFlow's own, and what its bindings make of some of them: a file cut short is an IndexError.
_NATIVE_ERRORS = (tf.errors.OpError, LookupError, RuntimeError)

Endpoint = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class Encoder(Embedder):
    """Embeds images and sentences in this process.

    Args:
        encode_image: the endpoint for images, of an export or of `Signatures`.
        encode_text: the endpoint for sentences.
        owner: what must live as long as the endpoints, which hold their variables by weak
            references only.
    """

    def __init__(
        self, encode_image: Endpoint, encode_text: Endpoint, owner: object | None = None
    ) -> None:
        super().__init__(Limits(_BATCH))
        self._owner = owner
        self._endpoints = {"encode_image": encode_image, "encode_text": encode_text}
        vectors, _ = self._embed("encode_text", [])
        self._dimension = int(vectors.shape[1])

    @property
    def dimension(self) -> int:
        """The numbers of a vector, D."""
        return self._dimension

    def _embed(self, endpoint: str, contents: Sequence[bytes]) -> Answer:
        answer = self._endpoints[endpoint](tf.constant(contents, tf.string))
        return answer["embedding"].numpy(), answer["status"].numpy()


def load(path: str | Path, checkpoint: str = "best") -> Encoder:
    """Loads a model, to embed images and sentences.

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
    signatures = Signatures(run.model, run.tokenizer, run.config.image.squash)
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
    except (OSError, AttributeError, ValueError, *_NATIVE_ERRORS) as error:
        reason = one_line(error)
        raise UserError(f"{version} cannot be loaded ({reason}): export it again") from error
