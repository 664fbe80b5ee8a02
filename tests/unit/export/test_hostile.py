"""Hostile images cannot hurt a batch: thousands of them, in the exported graph, in a Session.

This file is also the program that sends them, in a process of its own.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.heavy import blank_png, peak_mebibytes
from tests.samples import encoded
from tests.unit.export.tiny import encode
from tf_dpce.preprocessing import status

TOLERANCE = 1e-5
# Four images are decoded at a time. Each, as large as its header may declare, takes 192 MB, and
# as much again while its square is cut out; the process itself takes a little below 1 GB.
MOST_MEBIBYTES = 2_500
# Sides that a header is made to declare: none, the limit, beyond it, beyond what fits in 32 bits.
_SIDES = (0, 1, 40, 1_000, 8_000, 8_001, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)

# The longer sides of banners.
_LONGEST = (300, 5_000, 65_535, 65_536, 1_000_000)

Draw = np.random.Generator


def attacked(version: Path, count: int, seed: int) -> SimpleNamespace:
    """Attacks an exported version in a Session of a process of its own.

    Returns:
        failed: the errors of calls that failed.
        wrong_good: rows of sound images that were not as they are alone.
        wrong_bad: rows of damaged images that are neither zero nor of unit length.
        statuses: how many damaged images got each status.
        originals: the statuses of the images before they were damaged.
        banners: the statuses of images that are a million pixels long.
        banner_mebibytes: what these added to the memory of the process.
        peak_mebibytes: the most memory that the process held.
    """
    command = [sys.executable, "-m", "tests.unit.export.test_hostile", str(version), str(count)]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([*command, str(seed)], env=quiet, stdout=subprocess.PIPE, check=True)
    return SimpleNamespace(**json.loads(done.stdout))


def originals() -> list[bytes]:
    """Small images of every kind, none of them damaged; the last four kinds are not accepted."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (5, 7, 3), np.uint8))
    colour = coarse.resize((70, 50), Image.Resampling.BICUBIC)
    deep = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    kinds = [
        *((colour.convert(mode), "JPEG", {}) for mode in ("RGB", "L", "CMYK")),
        *((colour, "JPEG", options) for options in ({"progressive": True}, {"quality": 100})),
        *((colour.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        (deep, "PNG", {}),
        (colour, "PNG", {"save_all": True, "append_images": [colour.rotate(90)]}),
        *((colour, kind, {}) for kind in ("GIF", "BMP", "WEBP", "TIFF")),
    ]
    return [encoded(image, kind, **how) for image, kind, how in kinds]


def damaged(count: int, seed: int) -> Iterator[bytes]:
    """Yields damaged images; some take more than one blow."""
    draw = np.random.default_rng(seed)
    sound = originals()
    for _ in range(count):
        content = sound[draw.integers(len(sound))]
        for _ in range(draw.integers(1, 4)):
            blow = _BLOWS[draw.integers(len(_BLOWS))]
            content = blow(content, sound[draw.integers(len(sound))], draw)
        yield content


def _attack(version: Path, count: int, seed: int) -> SimpleNamespace:
    """Sends damaged images: nine tenths among sound ones, the others alone or among their like.

    Every batch of 16 has 4 sound images, at positions drawn from the seed.
    """
    from tf_dpce.export.session_process import SessionModel

    draw = np.random.default_rng(seed)
    sound = originals()
    findings = SimpleNamespace(failed=[], wrong_good=0, wrong_bad=0, statuses=Counter())
    bad = damaged(count, seed)
    served = SessionModel(version)

    def send(batch: list[bytes], positions: np.ndarray, expected: np.ndarray) -> None:
        others = np.setdiff1d(np.arange(len(batch)), positions)
        try:
            embeddings, statuses = encode(served, "encode_image", batch)
        except Exception as error:
            findings.failed.append(str(error))
            return
        near = np.abs(embeddings[positions] - expected).max(axis=1, initial=0) <= TOLERANCE
        findings.wrong_good += int(np.sum(~near | (statuses[positions] != status.OK)))
        lengths = np.linalg.norm(embeddings[others], axis=1)
        wanted = statuses[others] == status.OK
        findings.wrong_bad += int(np.sum(~(np.abs(lengths - wanted) <= TOLERANCE)))
        findings.statuses.update(statuses[others].tolist())

    alone, statuses = encode(served, "encode_image", sound)
    findings.originals = statuses.tolist()
    # Resized whole, lying banners would take 366 MiB more each.
    before = peak_mebibytes()
    banners = [blank_png(1_000_000, 64, grey=True), blank_png(64, 1_000_000, grey=True)]
    findings.banners = encode(served, "encode_image", banners * 2)[1].tolist()
    findings.banner_mebibytes = peak_mebibytes() - before
    for _ in range(count * 9 // 10 // 12):
        batch = [next(bad) for _ in range(12)]
        positions = np.sort(draw.choice(16, 4, replace=False))
        for position, content in zip(positions, sound, strict=False):
            batch.insert(position, content)
        send(batch, positions, alone[:4])
    rest, single = list(bad), count // 20
    batches = [[content] for content in rest[:single]]
    batches += [rest[start : start + 16] for start in range(single, len(rest), 16)]
    for batch in [*batches, []]:
        send(batch, np.array([], int), alone[:0])
    findings.peak_mebibytes = peak_mebibytes()
    return findings


# --- blows: (content, another image, draw) -> content -------------------------------------------


def _flip_bits(content: bytes, other: bytes, draw: Draw) -> bytes:
    changed = bytearray(content)
    for place in draw.integers(len(changed), size=draw.integers(1, 9)) if changed else ():
        changed[place] ^= 1 << draw.integers(8)
    return bytes(changed)


def _damage_head(content: bytes, other: bytes, draw: Draw) -> bytes:
    return _flip_bits(content[:64], other, draw) + content[64:]


def _overwrite(content: bytes, other: bytes, draw: Draw) -> bytes:
    start, noise = draw.integers(len(content) + 1), draw.bytes(draw.integers(1, 65))
    return content[:start] + noise + content[start + len(noise) :]


def _truncate(content: bytes, other: bytes, draw: Draw) -> bytes:
    return content[: draw.integers(len(content) + 1)]


def _drop(content: bytes, other: bytes, draw: Draw) -> bytes:
    start, end = np.sort(draw.integers(len(content) + 1, size=2))
    return content[:start] + content[end:]


def _repeat(content: bytes, other: bytes, draw: Draw) -> bytes:
    start, end = np.sort(draw.integers(len(content) + 1, size=2))
    return content[:end] + content[start:]


def _splice(content: bytes, other: bytes, draw: Draw) -> bytes:
    return content[: draw.integers(len(content) + 1)] + other[draw.integers(len(other) + 1) :]


def _noise(content: bytes, other: bytes, draw: Draw) -> bytes:
    return content[: draw.integers(0, 12)] + draw.bytes(draw.integers(0, 2_000))


def _declare_sides(content: bytes, other: bytes, draw: Draw) -> bytes:
    """Changes the sides in the header, with the checksum that goes with them."""
    sides = [int(_SIDES[draw.integers(len(_SIDES))]) for _ in range(2)]
    if content.startswith(b"\x89PNG") and len(content) >= 33:
        header = b"IHDR" + struct.pack(">II", *sides) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    # A frame of a JPEG: its mark, length and precision stand before height and width.
    for mark in (b"\xff\xc0", b"\xff\xc2"):
        place = content.find(mark)
        if place >= 0:
            packed = struct.pack(">HH", *(side % 2**16 for side in sides))
            return content[: place + 5] + packed + content[place + 9 :]
    return content


def _stretch(content: bytes, other: bytes, draw: Draw) -> bytes:
    """Puts a banner in its place, lying or standing."""
    length, breadth = int(_LONGEST[draw.integers(len(_LONGEST))]), int(draw.integers(1, 5))
    sides = (length, breadth) if draw.integers(2) else (breadth, length)
    return blank_png(*sides, grey=True)


def _damage_packed(content: bytes, other: bytes, draw: Draw) -> bytes:
    """Changes the first pixels of a PNG within their checksums."""
    place = content.find(b"IDAT")
    if not content.startswith(b"\x89PNG") or place < 4:
        return _overwrite(content, other, draw)
    (length,) = struct.unpack(">I", content[place - 4 : place])
    chunk = b"IDAT" + _flip_bits(content[place + 4 : place + 4 + length], other, draw)
    rest = content[place + 8 + length :]
    return content[:place] + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest


_BLOWS: tuple[Callable[[bytes, bytes, Draw], bytes], ...] = (
    *(_flip_bits, _damage_head, _overwrite, _truncate, _drop, _repeat, _splice, _noise),
    *(_declare_sides, _damage_packed, _stretch),
)


# --- tests ----------------------------------------------------------------------------------------


def check_unhurt(findings: SimpleNamespace) -> None:
    hurt = (findings.failed, findings.wrong_good, findings.wrong_bad)
    assert hurt == ([], 0, 0), findings
    assert findings.peak_mebibytes < MOST_MEBIBYTES


@pytest.mark.process
@pytest.mark.parametrize(("version", "count"), [("exported", 400), ("stretched", 100)])
def test_damaged_images_cost_only_their_own_rows(version, count, request):
    findings = attacked(request.getfixturevalue(version), count, seed=1)
    check_unhurt(findings)
    assert sum(findings.statuses.values()) == count
    # Images of nearly every fate were among them.
    fates = {status.OK, status.WRONG_TYPE, status.TOO_MANY_PIXELS, status.UNDECODABLE}
    assert set(map(int, findings.statuses)) >= fates
    # Before they were damaged, all were sound; the last four are GIF, BMP, WebP and TIFF.
    accepted = len(findings.originals) - 4
    assert findings.originals == [status.OK] * accepted + [status.WRONG_TYPE] * 4
    # The longest banners cost what other images do.
    assert findings.banners == [status.OK] * 4
    assert findings.banner_mebibytes < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("version", ["exported", "stretched"])
def test_ten_thousand_damaged_images_cost_only_their_own_rows(version, request, capsys):
    findings = attacked(request.getfixturevalue(version), count=10_000, seed=2)
    with capsys.disabled():
        print(f"\n{version}: {findings}")
    assert sum(findings.statuses.values()) == 10_000
    check_unhurt(findings)


if __name__ == "__main__":
    found = _attack(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    sys.stdout.write(json.dumps(vars(found)))
