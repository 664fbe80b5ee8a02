"""What a mistake says: its place, and foreign text that is short and in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_dpce.errors import UserError, shorten
from tf_dpce.remote_path import any_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog", "a dog"),
        ("Kätzchen 猫 🐶", "Kätzchen 猫 🐶"),
        ("a" * 80, "a" * 80),
        ("a" * 81, "a" * 77 + "..."),
        ("\r\n\t\0\x1b[31m", r"\r\n\t\x00\x1b[31m"),
        ("line\u2028end \u202e\ud83d", r"line\u2028end \u202e\ud83d"),
        (b"\x00\x00\x18", r"b'\x00\x00\x18'"),
        ({"bytes": b"\xff" * 100_000}, "{'bytes': b'" + r"\xff" * 16 + r"\..."),
    ],
)
def test_a_foreign_text_is_short_and_in_one_line(text: object, expected: str):
    assert shorten(text) == expected
    assert len(shorten(text)) <= 80


def test_escapes_count_towards_the_limit():
    assert shorten("\0" * 30) == r"\x00" * 19 + r"\..."
    assert shorten("a dogs", limit=5) == "a ..."


def test_an_address_stays_one():
    for path in ("s3://bucket/a.csv", any_path("s3://bucket/a.csv")):
        assert UserError("area.what", "wrong", path).path == "s3://bucket/a.csv"
    assert UserError("area.what", "wrong", "folder//a.csv").path == Path("folder/a.csv")
