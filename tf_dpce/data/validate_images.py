"""Reads and decodes every image once, before any training sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress
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
from tf_dpce.ray_tasks import limit_threads
from tf_dpce.remote_path import read_part
from tf_dpce.storage import is_remote

# Of one task of a thread. One more task than there are threads waits, so that all are busy.
_IMAGES_PER_PART = 8
# Files that are decoded by one call, because it copies them. Most images are far smaller.
_BYTES_PER_CALL = 2**24
_IMAGES_PER_CALL = 64  # of Ray, so that a call takes many times what sending it takes

Engine = Literal["local", "ray"]
Inspect = Callable[[Sequence[bytes]], Sequence[tuple[bytes, str | None]]]
Verdict = tuple[bytes, bool] | str

# What every scan of a JPEG begins with; other bytes may be the same.
_SCAN = b"\xff\xda\0"
# All bits of a JPEG are read at any scale, and the same files refused; this one has fewest pixels.
_RATIO = 8


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
        inspect: a function of the bytes of files that returns for each what to store of them, and
            the reason why they cannot be used, or None. Several threads call it, or for Ray
            processes, which must find it in a module.
        rejected: what was rejected so far; unusable images are added.
        workers: number of threads.
        name: name of the images, for the progress display.
        max_bytes: no more than this and one byte of a file is read, so that `inspect` can
            recognise a longer one.
        engine: "local" for threads of this process, "ray" for the machines of a Ray cluster.

    Yields:
        The images that can be used, in the order given, whatever `workers` is.
    """
    paths = [str(image.path) for image in images]
    if engine == "ray":
        verdicts = _on_ray(inspect, max_bytes, paths)
    else:
        verdicts = _in_threads(partial(_verdicts, inspect, max_bytes), paths, workers)
    pairs = zip(images, verdicts, strict=True)
    for image, verdict in tracked(pairs, name, len(images), transient=False):
        if isinstance(verdict, str):
            rejected.append(Rejected(str(image.path), verdict))
        else:
            yield ValidImage(image, *verdict)


def _verdicts(inspect: Inspect, max_bytes: int, paths: Sequence[str]) -> list[Verdict]:
    """Returns what to store of files and whether that differs, or why they are unusable."""
    read = [_read(path, max_bytes + 1) for path in paths]
    inspected = iter(inspect([contents for contents, reason in read if not reason]))
    verdicts: list[Verdict] = []
    for contents, reason in read:
        stored, reason = (b"", reason) if reason else next(inspected)
        verdicts.append(reason or (stored, stored != contents))
    return verdicts


def _parts(paths: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    return (paths[start : start + count] for start in range(0, len(paths), count))


def _in_threads(
    validate: Callable[[Sequence[str]], list[Verdict]], paths: Sequence[str], workers: int
) -> Iterator[Verdict]:
    waiting: deque[Future[list[Verdict]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for part in _parts(paths, _IMAGES_PER_PART):
                waiting.append(pool.submit(validate, part))
                if len(waiting) > workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(inspect: Inspect, max_bytes: int, paths: Sequence[str]) -> Iterator[Verdict]:
    """Inspects images on the machines of a Ray cluster, which read them where this one does."""
    from tf_dpce.ray_tasks import call_all, connected

    calls = ((inspect, max_bytes, part) for part in _parts(paths, _IMAGES_PER_CALL))
    with connected():
        for place, verdicts in call_all(_inspect_all, calls, in_order=True):
            if isinstance(verdicts, UserError):
                code, first = verdicts.code, paths[place * _IMAGES_PER_CALL]
                raise UserError(code, f"images from {first}: {verdicts.message}", first)
            yield from verdicts


def _inspect_all(
    threads: int, inspect: Inspect, max_bytes: int, paths: Sequence[str]
) -> list[Verdict]:
    limit_threads(threads)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(partial(_verdicts, inspect, max_bytes), _parts(paths, _IMAGES_PER_PART))
        return list(chain.from_iterable(parts))


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


def storable(files: Sequence[bytes]) -> list[tuple[bytes, str | None]]:
    """Returns what to store of files, and why training cannot decode them, None if it can.

    What `to_png` knows becomes a PNG, anything else stays as it is.
    """
    converted = [to_png(contents) for contents in files]
    found = iter(decodable([stored for stored, code in converted if code == status.OK]))
    return [
        next(found) if code == status.OK else (b"", explain(code, contents))
        for contents, (_, code) in zip(files, converted, strict=True)
    ]


def decodable(files: Sequence[bytes]) -> list[tuple[bytes, str | None]]:
    """Returns files, and the reason why training cannot decode one, None if it can."""
    if len(files) > 1 and sum(map(len, files)) > _BYTES_PER_CALL:
        middle = len(files) // 2
        return decodable(files[:middle]) + decodable(files[middle:])
    usual = [_is_usual(contents) for contents in files]
    try:
        sound = bool(_decode_all(tf.constant(list(compress(files, usual)), tf.string)))
    except tf.errors.InvalidArgumentError:
        # Each has a verdict of its own.
        sound = False
    pairs = zip(files, usual, strict=True)
    return [(file, None if sound and is_usual else _fault(file)) for file, is_usual in pairs]


def _is_usual(contents: bytes) -> bool:
    """Returns whether a file is a JPEG whose length and scans are within the limits."""
    if len(contents) > status.MAX_BYTES or file_kind(contents) != "JPEG":
        return False
    return contents.count(_SCAN) <= status.MAX_PARTS


# In one call, because around each Python's lock is held for as long as a small image takes.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _decode_all(jpegs: tf.Tensor) -> tf.Tensor:
    def values(contents: tf.Tensor) -> tf.Tensor:
        pixels = tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(contents), tf.int64)[:2])
        with tf.control_dependencies([tf.debugging.Assert(pixels <= status.MAX_PIXELS, [pixels])]):
            return tf.size(tf.io.decode_jpeg(contents, 3, _RATIO))

    sizes = tf.map_fn(values, jpegs, parallel_iterations=1, fn_output_signature=tf.int32)
    return tf.reduce_all(sizes > 0)


def _fault(contents: bytes) -> str | None:
    try:
        code = int(_status(tf.constant(contents)))
    except tf.errors.InvalidArgumentError:
        code = status.UNDECODABLE
    return None if code == status.OK else explain(code, contents)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _status(contents: tf.Tensor) -> tf.Tensor:
    def by_decoding() -> tf.Tensor:
        values = tf.size(decode(contents))
        return tf.where(values > 0, status.OK, status.UNDECODABLE)

    code = check(contents)
    return tf.cond(code == status.OK, by_decoding, lambda: code)
