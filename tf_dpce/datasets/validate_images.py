"""Reads and decodes every image once, before any training sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tf_dpce.datasets.pair import NO_FILE, Image

# Enough waiting images to keep every worker busy while one large image holds up the order.
_IMAGES_PER_WORKER = 8


@dataclass(frozen=True, slots=True)
class ValidatedImage:
    """An image with the bytes to store, or the reason why it cannot be used.

    `rewritten` says whether the bytes differ from those of its file.
    """

    image: Image
    contents: bytes
    reason: str | None
    rewritten: bool


def validate_images(
    images: Iterable[Image],
    inspect: Callable[[bytes], tuple[bytes, str | None]],
    max_bytes: int,
    workers: int,
) -> Iterator[ValidatedImage]:
    """Reads and inspects images in parallel threads, in bounded memory.

    Args:
        images: the images to read.
        inspect: a function of the bytes of a file that returns what to store of them, and the
            reason why they cannot be used, or None. Several threads call it.
        max_bytes: no more than this and one byte of a file is read, so that `inspect` can
            recognise a longer one.
        workers: number of threads.

    Yields:
        One `ValidatedImage` for each image, in the order given, whatever `workers` is.
    """

    def validate(image: Image) -> ValidatedImage:
        contents, reason = _read(image.path, max_bytes + 1)
        stored, reason = (b"", reason) if reason else inspect(contents)
        if reason:
            return ValidatedImage(image, b"", reason, rewritten=False)
        return ValidatedImage(image, stored, None, rewritten=stored != contents)

    waiting: deque[Future[ValidatedImage]] = deque()
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
