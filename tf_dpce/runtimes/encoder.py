"""An exported model in a runtime other than TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from tf_dpce.export.batches import Answer, Batches
from tf_dpce.export.encoder import Encoder, Kind, contents_of
from tf_dpce.preprocessing import status
from tf_dpce.runtimes.engines import ENGINES, Engine, check_installed, cores, open_engine
from tf_dpce.runtimes.manifest import IMAGE, TEXT, WORDS, RuntimeManifest, model_file
from tf_dpce.runtimes.tokens import Tokenizer

# More images at a time are no faster on a CPU, and take more memory.
_BATCHES = {"images": 16, "texts": 64}


class RuntimeEncoder(Encoder):
    """Embeds images and captions in ONNX Runtime, OpenVINO or LiteRT.

    What is not asked for is not loaded: a search by a text opens the text encoder alone. Many
    threads may ask at once.

    Args:
        version: the folder of an exported version.
        runtime: one of `engines.ENGINES`.

    Raises:
        UserError: the package of the runtime is not installed; or the version has no files of it,
            or damaged ones.
    """

    def __init__(self, version: Path, runtime: str) -> None:
        check_installed([runtime])
        self._version, self._runtime = version, runtime
        self.manifest = RuntimeManifest.read(version, runtime)
        self.dimension = self.manifest.dimension

    def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
        """See `Encoder.encode_with_status`."""
        batches = Batches(contents_of(kind, items), _BATCHES[kind])
        answers = [self.encode_contents(kind, batch) for batch in batches]
        return batches.join(answers, self.dimension)

    def count_inferred(self, captions: Sequence[str]) -> np.ndarray:
        """See `Encoder.count_inferred`."""
        ids, _ = self._tokenizer(list(contents_of("texts", captions)))
        trained = len(self._tokenizer.words) - self.manifest.inferred
        return (ids > trained).sum(axis=1).astype(np.int32)

    def encode_contents(self, kind: Kind, contents: Sequence[bytes]) -> Answer:
        """Embeds one batch, JPEG or PNG bytes or captions in UTF-8, as an endpoint does."""
        if kind == "images":
            pixels, codes = self._pixels(contents)
            return self._answer(self.image_engine, pixels, codes)
        ids, codes = self._tokenizer(contents)
        usable = ids[codes == status.OK]
        last = (usable != 0).sum(axis=1).max(initial=0)
        return self._answer(self.text_engine, usable[:, : self.manifest.positions[last]], codes)

    @cached_property
    def image_engine(self) -> Engine:
        """From pixels float32 `[B, S, S, 3]` to embeddings float32 `[B, D]`."""
        return self._engine(IMAGE)

    @cached_property
    def text_engine(self) -> Engine:
        """From token ids int32 `[B, T]` to embeddings float32 `[B, D]`."""
        return self._engine(TEXT)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        path = self.manifest.checked(self._version, WORDS)
        words = path.read_text(encoding="utf-8").split("\n")[:-1]
        manifest = self.manifest
        return Tokenizer(words, manifest.max_length, manifest.lowercase, manifest.pieces)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores())

    def _engine(self, kind: str) -> Engine:
        first = model_file(self._runtime, kind)
        stem = first.rpartition(".")[0]
        for suffix in ENGINES[self._runtime].suffixes:
            self.manifest.checked(self._version, f"{stem}{suffix}")
        return open_engine(self._runtime, self.manifest.checked(self._version, first))

    def _pixels(self, contents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pixels of the images that have any, and the statuses of all."""
        # Imported here, because a search by a text needs no Pillow.
        from tf_dpce.preprocessing.plain_image import image_pixels

        side = self.manifest.image_size
        limits = self.manifest.limits
        decode = partial(image_pixels, size=side, resize=self.manifest.resize, limits=limits)
        rows = list(self._threads.map(decode, contents))
        pixels = [each for _, each in rows if each is not None]
        codes = np.array([code for code, _ in rows], np.int32)
        return np.reshape(pixels, (-1, side, side, 3)), codes

    def _answer(self, engine: Engine, rows: np.ndarray, codes: np.ndarray) -> Answer:
        embeddings = np.zeros((len(codes), self.dimension), np.float32)
        if len(rows):
            embeddings[codes == status.OK] = engine(rows)
        return embeddings, codes
