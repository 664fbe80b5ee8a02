"""Reads and decodes every image once, before any training sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tensorflow as tf

from tf_dpce.datasets.listing import NO_FILE, Image, Rejected
from tf_dpce.errors import UserError
from tf_dpce.logging import tracked
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.file_kinds import explain, file_kind
from tf_dpce.preprocessing.image import decode
from tf_dpce.preprocessing.image_header import check
from tf_dpce.preprocessing.plain_image import scans
from tf_dpce.ray_tasks import limit_threads
from tf_dpce.remote_path import read_part
from tf_dpce.storage import is_remote

# Enough waiting images to keep every worker busy while one large image holds up the order.
_IMAGES_PER_WORKER = 8
_IMAGES_PER_CALL = 64  # of Ray, so that a call takes many times what sending it takes

Engine = Literal["local", "ray"]
Inspect = Callable[[bytes], tuple[bytes, str | None]]
Verdict = tuple[bytes, bool] | str


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image with the bytes to store; `rewritten` says whether its file holds others."""

    image: Image
    contents: bytes
    rewritten: bool


def validate_images(
    images: Sequence[Image],
    inspect: Inspect,
    rejected: list[Rejected],
    workers: int,
    name: str = "images",
    max_bytes: int = status.MAX_BYTES,
    engine: Engine = "local",
) -> Iterator[ValidImage]:
    """Reads and inspects images in parallel, in bounded memory.

    Args:
        images: the images to read.
        inspect: a function of the bytes of a file that returns what to store of them, and the
            reason why they cannot be used, or None. Several threads call it, or for Ray processes,
            which must find it in a module.
        rejected: what was rejected so far; unusable images are added.
        workers: number of threads.
        name: name of the images, for the progress display.
        max_bytes: no more than this and one byte of a file is read, so that `inspect` can
            recognise a longer one.
        engine: "local" for threads of this process, "ray" for the machines of a Ray cluster.

    Yields:
        The images that can be used, in the order given, whatever `workers` is.
    """

    validate = partial(_verdict, inspect, max_bytes)
    paths = [str(image.path) for image in images]
    if engine == "ray":
        verdicts = _on_ray(inspect, max_bytes, paths)
    else:
        verdicts = _in_threads(validate, paths, workers)
    pairs = zip(images, verdicts, strict=True)
    for image, verdict in tracked(pairs, name, len(images), transient=False):
        if isinstance(verdict, str):
            rejected.append(Rejected(str(image.path), verdict))
        else:
            yield ValidImage(image, *verdict)


def _verdict(inspect: Inspect, max_bytes: int, path: str) -> Verdict:
    """Returns what to store of a file and whether that differs from it, or why it is unusable."""
    contents, reason = _read(path, max_bytes + 1)
    stored, reason = (b"", reason) if reason else inspect(contents)
    return reason or (stored, stored != contents)


def _in_threads(
    validate: Callable[[str], Verdict], paths: Sequence[str], workers: int
) -> Iterator[Verdict]:
    waiting: deque[Future[Verdict]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(validate, path))
                if len(waiting) >= workers * _IMAGES_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(inspect: Inspect, max_bytes: int, paths: Sequence[str]) -> Iterator[Verdict]:
    """Inspects images on the machines of a Ray cluster, which read them where this one does."""
    from tf_dpce.ray_tasks import call_all, connected

    starts = range(0, len(paths), _IMAGES_PER_CALL)
    calls = ((inspect, max_bytes, paths[start : start + _IMAGES_PER_CALL]) for start in starts)
    with connected():
        for place, verdicts in call_all(_inspect_all, calls, in_order=True):
            if isinstance(verdicts, UserError):
                code, first = verdicts.code, paths[starts[place]]
                raise UserError(code, f"images from {first}: {verdicts.message}", first)
            yield from verdicts


def _inspect_all(
    threads: int, inspect: Inspect, max_bytes: int, paths: Sequence[str]
) -> list[Verdict]:
    limit_threads(threads)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(partial(_verdict, inspect, max_bytes), paths))


def _read(path: str, length: int) -> tuple[bytes, str | None]:
    try:
        # A pipe or a device would block or never end.
        if not is_remote(path) and not Path(path).is_file():
            return b"", NO_FILE
        return read_part(path, length=length), None
    except FileNotFoundError:
        return b"", NO_FILE
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
        jpeg = file_kind(contents) == "JPEG"
        code = _jpeg_status(contents) if jpeg else int(_status(tf.constant(contents)))
    except tf.errors.InvalidArgumentError:
        code = status.UNDECODABLE
    return None if code == status.OK else explain(code, contents)


def _jpeg_status(contents: bytes) -> int:
    """Returns what `_status` does; two operations take half the time of calling a graph.

    `plain_image.check` would not: Pillow reads a few damaged headers otherwise than TensorFlow.
    """
    if len(contents) > status.MAX_BYTES:
        return status.TOO_MANY_BYTES
    height, width, _ = tf.io.extract_jpeg_shape(contents).numpy().tolist()
    if height * width > status.MAX_PIXELS:
        return status.TOO_MANY_PIXELS
    decodable = scans(contents) <= status.MAX_PARTS and tf.size(tf.io.decode_jpeg(contents, 3)) > 0
    return status.OK if decodable else status.UNDECODABLE


# As one graph it holds Python's lock for a quarter of the time that single operations do.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _status(contents: tf.Tensor) -> tf.Tensor:
    def by_decoding() -> tf.Tensor:
        values = tf.size(decode(contents))
        return tf.where(values > 0, status.OK, status.UNDECODABLE)

    code = check(contents)
    return tf.cond(code == status.OK, by_decoding, lambda: code)
