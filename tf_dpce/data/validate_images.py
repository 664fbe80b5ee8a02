"""Reads and decodes every image once, before any training sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tf_dpce.datasets.listing import NO_FILE, Image, Rejected
from tf_dpce.logging import progress
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.image import decode
from tf_dpce.preprocessing.image_header import check

# Enough waiting images to keep every worker busy while one large image holds up the order.
_IMAGES_PER_WORKER = 8


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image with the bytes to store; `rewritten` says whether its file holds others."""

    image: Image
    contents: bytes
    rewritten: bool


def validate_images(
    images: Sequence[Image],
    inspect: Callable[[bytes], tuple[bytes, str | None]],
    rejected: list[Rejected],
    workers: int,
    name: str = "images",
    max_bytes: int = status.MAX_BYTES,
) -> Iterator[ValidImage]:
    """Reads and inspects images in parallel threads, in bounded memory.

    Args:
        images: the images to read.
        inspect: a function of the bytes of a file that returns what to store of them, and the
            reason why they cannot be used, or None. Several threads call it.
        rejected: what was rejected so far; unusable images are added.
        workers: number of threads.
        name: name of the images, for the progress display.
        max_bytes: no more than this and one byte of a file is read, so that `inspect` can
            recognise a longer one.

    Yields:
        The images that can be used, in the order given, whatever `workers` is.
    """

    def validate(image: Image) -> ValidImage | Rejected:
        contents, reason = _read(image.path, max_bytes + 1)
        stored, reason = (b"", reason) if reason else inspect(contents)
        if reason:
            return Rejected(str(image.path), reason)
        return ValidImage(image, stored, rewritten=stored != contents)

    with progress(name) as display:
        for done, item in enumerate(_in_threads(validate, images, workers), start=1):
            display.update(done, total=len(images))
            if isinstance(item, Rejected):
                rejected.append(item)
            else:
                yield item


def _in_threads(
    validate: Callable[[Image], ValidImage | Rejected], images: Sequence[Image], workers: int
) -> Iterator[ValidImage | Rejected]:
    waiting: deque[Future[ValidImage | Rejected]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for image in images:
                waiting.append(pool.submit(validate, image))
                if len(waiting) >= workers * _IMAGES_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(path: Path, length: int) -> tuple[bytes, str | None]:
    try:
        # A pipe or a device would block or never end.
        if not path.is_file():
            return b"", NO_FILE
        with path.open("rb") as stream:
            return stream.read(length), None
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"


def storable(contents: bytes) -> tuple[bytes, str | None]:
    """Returns what to store of a file, and why training cannot decode it, None if it can.

    What `to_png` knows becomes a PNG, anything else stays as it is.
    """
    stored, code = to_png(contents)
    if code != status.OK:
        return b"", explain(code, contents)
    return stored, decoding_fault(stored)


def decoding_fault(contents: bytes) -> str | None:
    """Returns the reason why training cannot decode the bytes of a file, None if it can."""
    try:
        code = int(_status(tf.constant(contents)))
    except tf.errors.InvalidArgumentError:
        code = status.UNDECODABLE
    return None if code == status.OK else explain(code, contents)


# As one graph it holds Python's lock for a quarter of the time that single operations do.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _status(contents: tf.Tensor) -> tf.Tensor:
    def by_decoding() -> tf.Tensor:
        values = tf.size(decode(contents))
        return tf.where(values > 0, status.OK, status.UNDECODABLE)

    code = check(contents)
    return tf.cond(code == status.OK, by_decoding, lambda: code)
