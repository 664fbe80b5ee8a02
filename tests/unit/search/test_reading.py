"""Images are read ahead of the encoder, but never many at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_dpce.preprocessing.status import MAX_BYTES, TOO_MANY_BYTES
from tf_dpce.search.inputs import Item
from tf_dpce.search.reading import Refusal, read_ahead, read_image


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 300])
def test_every_item_comes_once_in_order_with_its_content(tmp_path: Path, count: int):
    items = []
    for number in range(count):
        path = tmp_path / str(number)
        path.write_bytes(b"%d" % number)
        items.append(Item(str(number), path=str(path)))
    chunks = list(read_ahead(items))
    assert [item for chunk, _ in chunks for item in chunk] == items
    expected = [b"%d" % number for number in range(count)]
    assert [content for _, contents in chunks for content in contents] == expected


def test_no_more_than_two_chunks_are_in_memory():
    started = 0

    def endless():
        nonlocal started
        while True:
            started += 1
            yield Item(str(started), contents=b"image")

    taken = 0
    for chunk, _ in read_ahead(endless()):
        taken += len(chunk)
        assert started <= taken + 64
        if taken > 1000:
            break


def test_a_file_that_cannot_be_read_is_refused_with_the_systems_reason(tmp_path: Path):
    assert read_image(str(tmp_path / "gone.jpg")) == Refusal(
        None, "cannot be read: No such file or directory"
    )
    assert read_image(str(tmp_path)) == Refusal(None, "cannot be read: Is a directory")


def test_a_file_at_the_limit_is_read_and_one_above_it_refused(tmp_path: Path):
    path = tmp_path / "large.jpg"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES)
    assert len(read_image(str(path))) == MAX_BYTES
    with path.open("ab") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert read_image(str(path)).status == TOO_MANY_BYTES
