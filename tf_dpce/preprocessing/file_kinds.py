"""Says what the bytes of a file are, by their beginning, so that a rejection can name it."""

from __future__ import annotations

import importlib.util

from tf_dpce.preprocessing import status

_MARKS = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("BMP", b"BM"),
    *(("TIFF", mark) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\0\0\0\x0cJXL "),
    ("JPEG 2000", b"\0\0\0\x0cjP  "),
    ("JPEG 2000", b"\xff\x4f\xff\x51"),
    *(("PNM", mark) for mark in (b"P4\n", b"P5\n", b"P6\n")),
    ("icon", b"\0\0\1\0"),
    ("Photoshop file", b"8BPS"),
    ("PDF", b"%PDF"),
    ("zip archive", b"PK\3\4"),
    ("gzip file", b"\x1f\x8b"),
    ("Git LFS pointer", b"version https://git-lfs"),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<title")
_HEAD_BYTES = 1024
# What `convert.to_png` decodes; all else that cannot be decoded is JPEG or PNG.
_CONVERTED = ("AVIF", "BMP", "GIF", "HEIC", "TIFF", "WebP")


def file_kind(contents: bytes) -> str | None:
    """Returns the name of the format that the bytes of a file begin like; None if none is known.

    Example:
        >>> file_kind(b"GIF89a..."), file_kind(b"<!DOCTYPE html><html>"), file_kind(b"\\0\\0")
        ('GIF', 'HTML page', None)
    """
    for kind, mark in _MARKS:
        if contents.startswith(mark):
            return kind
    if contents[:4] == b"RIFF" and contents[8:12] == b"WEBP":
        return "WebP"
    if contents[4:8] == b"ftyp":
        return _media_kind(contents)
    return _text_kind(contents[:_HEAD_BYTES])


def explain(code: int, contents: bytes | str) -> str:
    """Returns the reason of a status of a file or caption; it names a file of the wrong type.

    Example:
        >>> explain(status.WRONG_TYPE, b"%PDF-1.7")
        'PDF, neither JPEG nor PNG'
    """
    kind = file_kind(contents) if isinstance(contents, bytes) else None
    named = code == status.WRONG_TYPE or (code == status.UNDECODABLE and kind in _CONVERTED)
    if kind is None or not named:
        return status.REASONS[code]
    if kind == "HEIC" and not has_heif():
        return "HEIC, which needs the extra heif (requirements-heif.txt)"
    return f"{kind}, {status.REASONS[code]}"


def has_heif() -> bool:
    """Returns whether the extra that reads HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _media_kind(contents: bytes) -> str:
    """A box of brands opens all these files: the main one, a version, and others that also fit."""
    length = min(int.from_bytes(contents[:4]), _HEAD_BYTES)
    brands = [contents[8:12], *(contents[n : n + 4] for n in range(16, length, 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if any(brand in _HEIC for brand in brands) else "MP4 or another film"


def _text_kind(head: bytes) -> str | None:
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"<"):
        if b"<svg" in head and b"<html" not in head:
            return "SVG"
        if any(tag in head for tag in _HTML):
            return "HTML page"
        return "XML" if head.startswith(b"<?xml") else "text"
    if head.startswith((b"{", b"[")):
        return "JSON"
    # The last character may be cut.
    text = head.decode("utf-8", "ignore")
    printable = all(sign.isprintable() or sign.isspace() for sign in text)
    return "text" if text and printable and len(text.encode()) > len(head) - 4 else None
