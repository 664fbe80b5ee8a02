"""Foreign text in messages: short, and in one line."""

from __future__ import annotations

import pytest

from tf_dpce.errors import shorten


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
