"""Facts of images: right for every kind of file, and never an error for a damaged one."""

from __future__ import annotations

import hashlib
import os
import random
from datetime import datetime
from pathlib import Path
from zlib import crc32

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from tests.samples import bitmap_of_size, image, truncated
from tf_dpce.search.embedding.facts import image_facts, image_schema
from tf_dpce.search.embedding.inputs import CHANGED, read_file
from tf_dpce.search.embedding.store import read_records, write_lines

TAKEN = datetime(2024, 5, 17, 10, 41, 58)


def exif(taken: str | bytes | None = "2024:05:17 10:41:58", orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.DateTime] = "2001:01:01 00:00:00"  # when it was edited, which is no date
    if taken is not None:
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    return tags


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_size_and_date_of_each_kind(kind: str):
    # Stored as 9 by 7; the orientations 5 to 8 lie on their side.
    for orientation, size in ((1, (9, 7)), (3, (9, 7)), (6, (7, 9)), (8, (7, 9))):
        facts = image_facts("a/b.x", image(kind, exif=exif(orientation=orientation).tobytes()))
        assert (facts["width"], facts["height"], facts["taken"]) == (*size, TAKEN), orientation
    facts = image_facts("a/b.x", image(kind))
    assert (facts["width"], facts["height"], facts["taken"]) == (9, 7, None)


def test_place_bytes_content_and_change():
    contents = image("GIF")
    for name, folder in (("a.gif", ""), ("x/a.gif", "x"), ("x/y z/a.gif", "x/y z")):
        facts = image_facts(name, contents, 1_700_000_000_123_456_789)
        assert (facts["folder"], facts["name"]) == (folder, "a.gif")
    # 1.7e9 seconds after 1970 are 22:13:20 on 14 November 2023, UTC.
    assert facts["modified"] == datetime(2023, 11, 14, 22, 13, 20, 123_456)
    assert facts["bytes"] == len(contents)
    assert facts["content"] == hashlib.sha256(contents).hexdigest()
    # Before 1970 there were files, and after the year 9999 there are only broken clocks.
    assert image_facts("a", b"", -1_000)["modified"] == datetime(1969, 12, 31, 23, 59, 59, 999_999)
    assert image_facts("a", b"", 10**21)["modified"] is None


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("2024-05-17T10:41:58.25", TAKEN),
        ("2024:05:17 10:41:58+02:00", TAKEN),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2024:02:30 10:41:58", None),
        ("2024:05:17 24:00:00", None),
        ("2024:05:17", None),
        ("", None),
        (b"\xff\xfe", None),
    ],
)
def test_dates_as_cameras_write_them(written: str | bytes, taken: datetime | None):
    assert image_facts("a.jpg", image(exif=exif(written).tobytes()))["taken"] == taken


def test_nothing_that_is_wrong_with_a_file_is_an_error():
    whole = {kind: image(kind, exif=exif().tobytes()) for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    damaged = [b"", b"\xff\xd8\xff", b"%PDF", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff" + bytes(9_999)]
    damaged += [truncated(contents) for contents in whole.values()]
    draw = random.Random(0)
    for contents in whole.values():
        for _ in range(250):
            # Within the header and the tags, which lie at the beginning or the end.
            changed = bytearray(contents)
            for _ in range(draw.randint(1, 4)):
                place = draw.choice((draw.randrange(200), -1 - draw.randrange(200)))
                changed[place % len(changed)] = draw.randrange(256)
            damaged.append(bytes(changed))
    for contents in damaged:
        facts = image_facts("a.jpg", contents)
        assert facts["content"] == hashlib.sha256(contents).hexdigest()
        assert isinstance(facts["taken"], datetime | None)
    # The tags are lost, the size is not.
    tags = exif().tobytes()
    facts = image_facts("a.jpg", image(exif=tags[:8] + b"\xff" * (len(tags) - 8)))
    assert (facts["width"], facts["height"], facts["taken"]) == (9, 7, None)


def test_no_pixel_is_decoded():
    # Headers of 60,000 by 60,000 pixels, and a PNG whose tags would stand behind its pixels.
    facts = image_facts("a.bmp", bitmap_of_size(60_000, 60_000))
    assert (facts["width"], facts["height"]) == (60_000, 60_000)
    contents = bytearray(image("PNG"))
    contents[16:24] = (60_000).to_bytes(4) * 2
    header_end = 8 + 4 + 4 + 13
    contents[header_end : header_end + 4] = crc32(contents[12:header_end]).to_bytes(4)
    facts = image_facts("a.png", bytes(contents))
    assert (facts["width"], facts["height"]) == (60_000, 60_000)


def test_records_have_the_types_of_the_schema_also_if_nothing_is_known(tmp_path: Path):
    known = image_facts("x/a.jpg", image(exif=exif().tobytes()), 1_700_000_000_123_456_789)
    unknown = image_facts("\u2028/\x00b", b"?")
    records = [
        {"id": name, "path": f"/{name}", **facts} for name, facts in (("a", known), ("b", unknown))
    ]
    for name, some in (("both", records), ("one", records[1:]), ("none", [])):
        write_lines(tmp_path / name, some)
        table = read_records(tmp_path / name, "images")
        assert table.schema == image_schema()
        assert table.to_pylist() == some
        pq.write_table(table, tmp_path / "records.parquet")
        assert pq.read_table(tmp_path / "records.parquet").to_pylist() == some


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"half")
    assert read_file(str(path)) == (b"half", path.stat().st_mtime_ns)
    asked = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        # Before the first answer nothing is read; before the second, half of the file.
        state = asked(descriptor)
        with path.open("ab") as other:
            other.write(b" and half")
        return state

    monkeypatch.setattr(os, "fstat", grown)
    assert read_file(str(path)).reason == CHANGED
