"""Validation reads every image once, in parallel, in order and in bounded memory."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tf_dpce.datasets.pair import Image
from tf_dpce.datasets.validate_images import validate_images

LIMIT = 100


def image(path: Path) -> Image:
    return Image(path.name, path, ("a caption",), "train", path.name)


def accept(contents: bytes) -> tuple[bytes, str | None]:
    return contents, None


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    paths = [tmp_path / f"{number}.jpg" for number in range(60)]
    for path in paths:
        path.write_text(path.name)
    return [image(path) for path in paths]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_order_and_verdicts_do_not_depend_on_the_workers(images: list[Image], workers: int):
    delays = random.Random(workers)
    seen: list[bytes] = []

    def inspect(contents: bytes) -> tuple[bytes, str | None]:
        time.sleep(delays.uniform(0, 0.003))
        seen.append(contents)
        stored = contents.upper() if contents.endswith(b"8.jpg") else contents
        return stored, "ends in seven" if contents.endswith(b"7.jpg") else None

    results = list(validate_images(images, inspect, LIMIT, workers))
    assert [item.image for item in results] == images
    for item in results:
        name = item.image.image_id
        bad, other = name.endswith("7.jpg"), name.endswith("8.jpg")
        assert item.reason == ("ends in seven" if bad else None)
        assert item.contents.decode() == ("" if bad else name.upper() if other else name)
        assert item.rewritten == other
    assert sorted(seen) == sorted(item.image_id.encode() for item in images), "each once"


def test_workers_work_at_the_same_time(images: list[Image]):
    # Each waits for the other: one thread alone would break the barrier.
    meeting = threading.Barrier(2, timeout=5)
    results = list(
        validate_images(images, lambda contents: (contents, meeting.wait() and None), LIMIT, 2)
    )
    assert len(results) == len(images)


def test_no_more_than_a_window_is_read_ahead(images: list[Image]):
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield images[asked % len(images)]

    results = validate_images(endless(), accept, LIMIT, workers=3)
    for _ in range(100):
        next(results)
    results.close()
    assert asked <= 100 + 3 * 8


def test_what_is_no_readable_file_has_a_reason(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    names = ["pipe.jpg", "folder.jpg", "dangling.jpg", "missing.jpg"]
    results = list(validate_images([image(tmp_path / n) for n in names], accept, LIMIT, 2))
    assert [item.reason for item in results] == ["no such file"] * 4


def test_a_name_that_the_file_system_cannot_hold_costs_one_image(tmp_path: Path):
    (tmp_path / "good.jpg").write_text("x")
    paths = [tmp_path / f"{'x' * 5000}.jpg", tmp_path / "good.jpg", tmp_path / "a\0.jpg"]
    results = list(validate_images([image(path) for path in paths], accept, LIMIT, 2))
    reasons = ["cannot be read: File name too long", None, "no such file"]
    assert [item.reason for item in results] == reasons


def test_of_a_long_file_only_so_much_is_read_that_it_is_known_to_be_long(tmp_path: Path):
    path = tmp_path / "long.jpg"
    path.write_bytes(b"x" * 1000)
    (item,) = validate_images([image(path)], accept, LIMIT, 1)
    assert len(item.contents) == LIMIT + 1


def test_a_fault_of_the_inspector_is_not_swallowed(images: list[Image]):
    def inspect(contents: bytes) -> tuple[bytes, str | None]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(validate_images(images, inspect, LIMIT, 2))
