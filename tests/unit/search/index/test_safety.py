"""Whatever happens to an index, it is in one of its states, or says in one line what is wrong."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.errors import raises
from tests.mounts import mounted, read_only
from tests.unit.search.index.changed import DEADLY, HISTORY, add
from tests.unit.search.index.reader import ITEMS, QUERY
from tests.unit.search.plain import DIMENSION, MODEL, vector
from tests.unit.search.plain_index import PlainIndex
from tf_dpce.files import exclusive_lock
from tf_dpce.search.index.build import FolderIndex, open_index
from tf_dpce.search.interface import Index


def content(index: Index) -> list:
    """Every item with its record and embedding."""
    if not index.counts.get("images"):
        return []
    (found,) = index.search("images", np.zeros((1, DIMENSION)), 1000, of="images")
    ids = [item.record["id"] for item in found]
    vectors = index.vectors("images", ids).astype(np.float16).tolist()
    return [(item.record, row) for item, row in zip(found, vectors, strict=True)]


@pytest.mark.process
def test_a_killed_change_is_done_or_not_begun(run_program, tmp_path: Path):
    FolderIndex.create(tmp_path / "0-0", MODEL, DIMENSION)
    run_program("tests.unit.search.index.changed", tmp_path)
    plain, states = PlainIndex(), [[]]
    for step, change in enumerate(HISTORY):
        change(plain)
        states.append(content(plain))
        if step not in DEADLY:
            continue
        moments = sorted(tmp_path.glob(f"{step}-*"), key=lambda path: int(path.name.split("-")[1]))
        reached = [states.index(content(open_index(path)), step) for path in moments]
        # First the old state, then the new one; the last process lived.
        assert len(reached) > 8 and set(reached) == {step, step + 1} and sorted(reached) == reached
        # The next change is done as if nothing had been, and removes what was left.
        for moment in moments[1::3]:
            index = open_index(moment)
            add("z")(index)
            assert "z" in [record["id"] for record, _ in content(index)]
            left = {path.name for path in moment.iterdir()}
            assert left == {"index.json"} | index.manifest.files


@pytest.mark.process
def test_readers_go_on_beside_a_writer(project_root: Path, tmp_path: Path):
    index, stop = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION), tmp_path / "stop"

    def add_generation(number: int) -> None:
        records = pa.table(
            {"id": [f"item {n}" for n in range(ITEMS)], "generation": [number] * ITEMS}
        )
        index.add("images", records, np.repeat(vector(QUERY)[None], ITEMS, axis=0))

    add_generation(0)
    command = [sys.executable, "-m", "tests.unit.search.index.reader", str(index.folder), str(stop)]
    readers = [
        subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for number in range(1, 40):
        add_generation(number)
        add(f"other {number}")(index)
        if number % 5 == 0:
            index.delete("images", [f"other {n}" for n in range(number)])
    stop.touch()
    for reader in readers:
        answers, generations = map(int, reader.communicate()[0].split())
        assert reader.returncode == 0
        assert answers > 20 and generations > 5


def test_a_second_writer_is_refused(tmp_path: Path):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    add("a")(index)
    with exclusive_lock(index.folder):
        for change in (add("b"), lambda index: index.delete("images", ["a"])):
            with raises("file.locked", path=index.folder):
                change(index)
        assert [record["id"] for record, _ in content(index)] == ["a"]
    add("b")(index)


def test_a_full_disk_changes_nothing(tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted(folder, "size=200k"):
        _fill(folder)


def _fill(folder: Path) -> None:
    index = FolderIndex.create(folder / "index", MODEL, DIMENSION)
    add("a", "b")(index)
    before, files = content(index), {path.name for path in index.folder.iterdir()}
    # The embeddings, of 32 bytes, find no room, then the records.
    for count in (50_000, 5_500):
        names = [f"item {number}" for number in range(count)]
        random = np.random.default_rng(0).normal(size=(count, DIMENSION)).astype(np.float32)
        with pytest.raises(OSError) as caught:
            index.add("images", pa.table({"id": names, "text": names}), random)
        assert caught.value.errno == errno.ENOSPC
        assert str(index.folder) in caught.value.filename
        assert content(index) == before
        assert {path.name for path in index.folder.iterdir()} == files
    add("c")(index)


def test_an_index_that_cannot_be_written_to_is_searched(tmp_path: Path):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    add("a", "b")(index)
    with read_only(index.folder):
        assert len(content(open_index(index.folder))) == 2
        with pytest.raises(OSError) as caught:
            add("c")(index)
        assert caught.value.errno in (errno.EROFS, errno.EACCES)
        del caught
    assert len(content(index)) == 2


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An index with a file of each kind."""
    index = FolderIndex.create(tmp_path / "whole", MODEL, DIMENSION)
    add(*(f"item {number}" for number in range(200)))(index)
    index.delete("images", ["item 0"])
    return index.folder


@pytest.mark.parametrize("ending", ["faiss", "parquet", "npy"])
def test_a_cut_or_damaged_file_is_named(whole: Path, ending: str):
    (path,) = whole.glob(f"*.{ending}")
    before = path.read_bytes()
    for after in (None, b"", before[:10], before[:-1], before[: len(before) // 2], before + b"x"):
        path.unlink(missing_ok=True)
        if after is not None:
            path.write_bytes(after)
        with raises("index.damaged", path=path):
            content(open_index(whole))
        with raises("index.damaged", path=path):
            add("z")(open_index(whole))
    for place in range(0, len(before), len(before) // 20 + 1):
        path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        with raises("index.damaged", path=path):
            content(open_index(whole))
    path.write_bytes(before)
    assert len(content(open_index(whole))) == 199


def test_a_damaged_manifest_and_an_index_of_another_version_are_refused(tmp_path: Path):
    path = tmp_path / "index.json"
    former = '{"version": 1, "factory": "Flat", "model": "m", "dimension": 16, "counts": {}}'
    for text, code in (
        ("{}", "index.damaged"),
        ("[]", "index.damaged"),
        ("{", "index.damaged"),
        ('{"format": 2, "model": "m"}', "index.damaged"),
        (former, "index.format"),
        (former.replace('"version"', '"format": 3, "version"'), "index.format"),
    ):
        path.write_text(text)
        with raises(code, path=path):
            open_index(tmp_path)


def test_an_open_index_notices_that_it_was_replaced(tmp_path: Path):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    add("a")(index)
    reader, version = open_index(index.folder), index.version
    assert len(content(reader)) == 1
    shutil.rmtree(index.folder)
    with raises("index.missing", path=index.folder):
        content(reader)
    other = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    add("b", "c")(other)
    assert [record["id"] for record, _ in content(reader)] == ["b", "c"]
    assert reader.version != version
    FolderIndex.create(tmp_path / "index", "n" * 64, DIMENSION)
    with raises("search.other_model", path=index.folder):
        content(reader)
    (index.folder / "index.json").write_bytes(b"\xff")
    with raises("index.damaged", path=index.folder / "index.json"):
        content(reader)
