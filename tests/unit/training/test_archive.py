"""Arrays in a file that knows when it is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tf_dpce.training.archive import Damaged, opened_arrays, write_arrays

ARRAYS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7)}


def read(path: Path) -> dict[str, np.ndarray]:
    with opened_arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_arrays_come_back_as_they_went(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    found = read(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_seal_is_the_digest_of_all_before_it(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    contents = path.read_bytes()
    digits = hashlib.sha256(contents[:-64]).hexdigest().encode()
    assert contents.endswith(b"sha256 " + digits)


def test_every_flipped_bit_is_noticed(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    contents = path.read_bytes()
    unnoticed = []
    for place in range(len(contents)):
        damaged = bytearray(contents)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read(path)
            unnoticed.append(place)
        except Damaged as error:
            assert str(error).startswith(f"{path} is damaged: ")
    assert unnoticed == []


def test_a_file_cut_anywhere_is_damaged_or_lacks_the_seal_alone(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    contents = path.read_bytes()
    seal = len("sha256 ") + 64
    for size in range(len(contents)):
        path.write_bytes(contents[:size])
        if size == len(contents) - seal:
            # As earlier versions wrote it.
            np.testing.assert_array_equal(read(path)["kernel"], ARRAYS["kernel"])
            continue
        with pytest.raises(Damaged):
            read(path)


def test_what_has_no_seal_is_read(tmp_path: Path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    np.testing.assert_array_equal(read(tmp_path / "a.npz")["count"], 7)


def test_what_is_replaced_can_be_kept(tmp_path: Path):
    path, previous = tmp_path / "a.npz", tmp_path / "b.npz"
    for count in range(3):
        write_arrays(path, [("count", np.array(count))], previous)
        assert read(path)["count"] == count
        assert previous.exists() == (count > 0)
    assert read(previous)["count"] == 1
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.npz", "b.npz"]
