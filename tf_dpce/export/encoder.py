"""Embeddings in two lines, from a run folder, an exported model or a server.

Importing this module needs NumPy alone. TensorFlow is imported when a model is loaded, and a client
of a server never imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.batches import Answer, Batches, counts_inferred
from tf_dpce.export.versions import find_version, is_run
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.file_kinds import explain, file_kind

_LONGEST_QUOTE = 80

Kind = Literal["images", "texts"]
ENDPOINT_OF = {"images": "encode_image", "texts": "encode_text"}


class Encoder(ABC):
    """Embeds images and captions.

    Attributes:
        dimension: D, the width of an embedding.
    """

    dimension: int

    @abstractmethod
    def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
        """Embeds images or captions, and returns a status for each row instead of an error.

        Args:
            kind: "images" or "texts".
            items: a list of N paths or bytes of images, or of N captions.

        Returns:
            Embeddings, float32 `[N, D]`, and statuses, int32 `[N]`. If the status of a row is not
            0 (`tf_dpce.preprocessing.status.OK`), its embedding is all zeros.

        Raises:
            UserError: a file cannot be read.
        """

    def count_inferred(self, captions: Sequence[str]) -> np.ndarray:
        """Returns how many words of each caption are understood by their word vectors alone.

        Args:
            captions: a list of N captions.

        Returns:
            int32 `[N]`, zeros if the model was exported without such words.
        """
        return np.zeros(len(captions), np.int32)

    def encode_images(self, images: Sequence[str | Path | bytes]) -> np.ndarray:
        """Embeds images.

        Args:
            images: a list of N paths, or of the bytes of files: JPEG, PNG, or what
                `tf_dpce.preprocessing.convert.to_png` turns into PNG.

        Returns:
            Float32 `[N, D]`, rows of unit length.

        Raises:
            UserError: a file cannot be read, or is no image that can be encoded.
        """
        return all_usable("images", images, self.encode_with_status("images", images))

    def encode_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embeds captions.

        Args:
            captions: a list of N captions or text queries.

        Returns:
            Float32 `[N, D]`, rows of unit length.

        Raises:
            UserError: a caption is empty or too long, or has no word of the vocabulary.
        """
        return all_usable("texts", captions, self.encode_with_status("texts", captions))

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Compares embeddings.

        Args:
            a: float `[N, D]`, rows of unit length.
            b: float `[M, D]`, the same.

        Returns:
            Cosines `[N, M]`, from -1 to 1.

        Example:
            >>> encoder = tf_dpce.load("saved_models/scenes")
            >>> images = encoder.encode_images(["dog.jpg", "cat.jpg"])
            >>> encoder.similarity(images, encoder.encode_texts(["a dog"])).shape
            (2, 1)
        """
        return np.asarray(a) @ np.asarray(b).T


def contents_of(kind: Kind, items: Sequence[str | Path | bytes]) -> Iterator[bytes | int]:
    """Returns the bytes of images, each file read when it is asked for, or captions in UTF-8.

    Images are JPEG or PNG, or what `to_png` makes of them: a PNG, or a status.

    Raises:
        UserError: if a file cannot be read.
    """
    if isinstance(items, (str, bytes, Path)):
        raise TypeError(f"A list of {kind} is expected. Received: {type(items)}")
    if kind == "images":
        return (_encodable(_read_image(item)) for item in items)
    return (caption.encode(errors="replace") for caption in items)


def all_usable(kind: Kind, items: Sequence[str | Path | bytes], answer: Answer) -> np.ndarray:
    """Returns the embeddings of images or captions that could all be encoded.

    Raises:
        UserError: if a status is not OK.
    """
    embeddings, statuses = answer
    bad = np.flatnonzero(statuses != status.OK)
    if not len(bad):
        return embeddings
    row, path = bad[0], None
    if kind == "texts":
        name = f"caption {row + 1}, {items[row][:_LONGEST_QUOTE]!r}"
    elif isinstance(items[row], bytes):
        name = f"image {row + 1}"
    else:
        name = path = items[row]
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    code = int(statuses[row])
    reason = explain(code, items[row] if kind == "texts" else _read_image(items[row]))
    message = f"{name}: {reason}{others}"
    raise UserError("encode.unusable", message, path)


class LocalEncoder(Encoder):
    """Embeds images and captions in this process.

    Args:
        endpoints: the functions `encode_image` and `encode_text`, of an export or of a
            `ServingModule`.
        owner: what must live as long as the endpoints, which hold their variables by weak
            references only.
    """

    def __init__(self, endpoints: Mapping[str, Callable], owner: object) -> None:
        self._endpoints = endpoints
        self._owner = owner
        self.dimension = int(self._embed("encode_text", [])[0].shape[1])

    def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
        """See `Encoder.encode_with_status`."""
        batches = Batches(contents_of(kind, items))
        answers = [self._embed(ENDPOINT_OF[kind], batch) for batch in batches]
        return batches.join(answers, self.dimension)

    def count_inferred(self, captions: Sequence[str]) -> np.ndarray:
        """See `Encoder.count_inferred`."""
        batches = Batches(contents_of("texts", captions))
        answers = [(self._answer("encode_text", batch), len(batch)) for batch in batches]
        return counts_inferred(answers)

    def _embed(self, endpoint: str, contents: Sequence[bytes]) -> Answer:
        answer = self._answer(endpoint, contents)
        return answer["embedding"].numpy(), answer["status"].numpy()

    def _answer(self, endpoint: str, contents: Sequence[bytes]) -> Mapping[str, Any]:
        import tensorflow as tf

        return self._endpoints[endpoint](tf.constant(contents, tf.string))


def load_in_tensorflow(path: str | Path) -> Encoder:
    """Loads a trained model in TensorFlow; `runtimes.load` also knows other runtimes.

    Args:
        path: a run folder, whose best weights are used; an exported version (NAME/INTEGER); or an
            exported model (NAME), whose newest version is used.

    Returns:
        An encoder with the methods `encode_images`, `encode_texts`, `encode_with_status` and
        `similarity`.

    Raises:
        UserError: there is no model, or it cannot be loaded.
    """
    folder = Path(path)
    if is_run(folder):
        return _load_run(folder)
    return _load_version(find_version(folder))


def _load_run(folder: Path) -> Encoder:
    import tensorflow as tf

    from tf_dpce.export.serving_module import ServingModule, input_signature
    from tf_dpce.training.run_folder import load_run

    run = load_run(folder)
    module = ServingModule(run.model, run.tokenizer, run.config.image.resize)
    endpoints = {
        name: tf.function(getattr(module, name), input_signature(name), autograph=False)
        for name in ENDPOINTS
    }
    return LocalEncoder(endpoints, owner=module)


def _load_version(version: Path) -> Encoder:
    import tensorflow as tf

    from tf_dpce.export.session_process import one_line  # registers TensorFlow Text's operations

    try:
        exported: Any = tf.saved_model.load(str(version))
        endpoints = {name: getattr(exported, name) for name in ENDPOINTS}
        return LocalEncoder(endpoints, owner=exported)
    # TensorFlow's own errors, and what its bindings make of some: of a file cut short, IndexError.
    except (OSError, AttributeError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as e:
        message = f"{version} cannot be loaded ({one_line(e)}): export it again"
        raise UserError("export.damaged", message, version) from e


def _encodable(contents: bytes) -> bytes | int:
    if file_kind(contents) in ("JPEG", "PNG"):
        return contents
    # Imported here, because a client that sends JPEG needs no Pillow.
    from tf_dpce.preprocessing.convert import to_png

    png, code = to_png(contents)
    return png if code == status.OK else code


def _read_image(item: str | Path | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    try:
        return Path(item).read_bytes()
    except OSError as error:
        message = f"{item} cannot be read: {error.strerror}"
        raise UserError("encode.file", message, item) from None
