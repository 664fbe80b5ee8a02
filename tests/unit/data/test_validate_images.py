"""Validation reads every image once, in parallel, in order and in bounded memory."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.samples import Steps
from tests.samples import image as sample
from tf_dpce.data.validate_images import ValidImage, _fault, decodable, validate_images
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.logging import run_context

LIMIT = 100


def image(path: Path) -> Image:
    return Image(path.name, path, ("a caption",), "train")


def accept(contents: bytes) -> tuple[bytes, str | None]:
    return contents, None


def each(inspect):
    return lambda files: list(map(inspect, files))


def validate(images: list[Image], inspect=accept, workers: int = 2) -> tuple[list, list]:
    rejected: list[Rejected] = []
    options = {"workers": workers, "max_bytes": LIMIT}
    return list(validate_images(images, each(inspect), rejected, **options)), rejected


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    paths = [tmp_path / f"{number}.jpg" for number in range(60)]
    for path in paths:
        path.write_text(path.name)
    return [image(path) for path in paths]


@pytest.mark.parametrize("workers", [1, 7])
def test_order_and_verdicts_do_not_depend_on_the_workers(images: list[Image], workers: int):
    delays, seen, display = random.Random(workers), [], Steps()

    def inspect(contents: bytes) -> tuple[bytes, str | None]:
        time.sleep(delays.uniform(0, 0.003))
        seen.append(contents)
        stored = contents.upper() if contents.endswith(b"8.jpg") else contents
        return stored, "ends in seven" if contents.endswith(b"7.jpg") else None

    with run_context(display=display):
        found, rejected = validate(images, inspect, workers)
    expected = []
    for item in (item for item in images if not item.image_id.endswith("7.jpg")):
        rewritten = item.image_id.endswith("8.jpg")
        contents = item.image_id.upper() if rewritten else item.image_id
        expected.append(ValidImage(item, contents.encode(), rewritten))
    assert found == expected
    assert rejected == [Rejected(str(i.path), "ends in seven") for i in images[7::10]]
    assert sorted(seen) == sorted(item.image_id.encode() for item in images), "each once"
    assert display.steps == [(done, 60) for done in range(1, 61)]


def test_workers_work_at_the_same_time(images: list[Image]):
    # Each waits for the other: one thread alone would break the barrier. They take 8 at a time.
    meeting = threading.Barrier(2, timeout=5)
    found, _ = validate(images[:48], lambda contents: (contents, meeting.wait() and None))
    assert len(found) == 48


def test_no_more_than_a_window_is_read_ahead(images: list[Image]):
    seen: list[bytes] = []
    inspect = each(lambda contents: (seen.append(contents) or contents, None))
    results = validate_images(10 * images, inspect, [], workers=3)
    for _ in range(100):
        next(results)
    results.close()
    # 100 are in the first 13 parts of 8. Three threads have a part each, and one more waits.
    assert len(seen) <= 13 * 8 + 4 * 8


def test_what_is_no_readable_file_has_a_reason_and_costs_one_image(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    # Of a long file only so much is read that it is known to be long.
    (tmp_path / "long.jpg").write_bytes(b"x" * 1000)
    names = ["pipe.jpg", "folder.jpg", "dangling.jpg", "missing.jpg", "a\0.jpg"]
    names += ["long.jpg", f"{'x' * 5000}.jpg"]
    (found,), rejected = validate([image(tmp_path / name) for name in names])
    assert len(found.contents) == LIMIT + 1
    reasons = ["no such file"] * 5 + ["cannot be read: File name too long"]
    assert [item.reason for item in rejected] == reasons


def test_a_fault_of_the_inspector_is_not_swallowed(images: list[Image]):
    def inspect(contents: bytes) -> tuple[bytes, str | None]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        validate(images, inspect)


def test_files_that_are_decoded_together_have_the_verdicts_of_each_alone(monkeypatch):
    # What training does: each file alone, at its full size.
    draws, kinds = random.Random(0), ({}, {"progressive": True}, {"restart_marker_blocks": 2})
    whole = [
        sample("JPEG", mode, (40, 24), **how) for mode in ("RGB", "L", "CMYK") for how in kinds
    ]
    altered = [bytearray(contents) for contents in 12 * whole]
    for contents in altered:
        contents[draws.randrange(3, len(contents))] = draws.randrange(256)
    files = [bytes(contents[: draws.choice([-9, None, None])]) for contents in altered] + whole
    # Bytes behind the end do no harm, sides of 60,000 pixels are over the limit.
    start = whole[0].index(b"\xff\xc0") + 5
    large = whole[0][:start] + 2 * b"\xea\x60" + whole[0][start + 4 :]
    files += [whole[0] + b"more", large]
    alone = [(contents, _fault(contents)) for contents in files]
    assert [decodable([contents])[0] for contents in files] == alone
    parts = [decodable(files[start : start + 8]) for start in range(0, len(files), 8)]
    assert [found for part in parts for found in part] == alone
    monkeypatch.setattr("tf_dpce.data.validate_images._BYTES_PER_CALL", 4_000)
    assert decodable(files) == alone, "in halves of halves, as many bytes as one call may take"
    assert {reason for _, reason in alone[:-1]} == {None, "cannot be decoded"}
    assert alone[-1][1] not in (None, "cannot be decoded")
