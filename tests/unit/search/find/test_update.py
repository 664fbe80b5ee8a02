"""The index of a folder: after any changes and kills it is that of the images that are there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tests.mounts import mounted, read_only
from tests.samples import digests
from tests.unit.search.plain import DIMENSION, MODEL, PlainEncoder, vector
from tf_dpce.files import exclusive_lock
from tf_dpce.search.embedding import embed
from tf_dpce.search.embedding.inputs import MAX_BYTES
from tf_dpce.search.find import update as folder_update
from tf_dpce.search.find.update import Update, default_index, existing_index, update_index
from tf_dpce.search.index.folder import FolderIndex


class Folder:
    """A folder of images that only `PlainEncoder` reads, and its index."""

    def __init__(self, root: Path) -> None:
        self.root, self.index = root / "images", root / "index"
        self.root.mkdir()
        self.clock = 1_700_000_000

    def write(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        # Two writes within a tick of the system's clock would look like one.
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    def update(self) -> tuple[Update | None, int]:
        """Returns what `update_index` does, and how many images were encoded."""
        encoder = PlainEncoder()
        update = update_index(self.root, self.index, MODEL, lambda: encoder)
        return update, sum(encoder.calls)

    def indexed(self) -> dict[str, tuple]:
        return contents_of(self.index)

    def expected(self) -> dict[str, tuple]:
        """The same by reading every file."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        good = [path for path in files if not path.read_text().startswith("bad")]
        return {str(path.relative_to(self.root)): record_of(path) for path in good}


def record_of(path: Path) -> tuple:
    content = path.read_bytes()
    stored = vector(content).astype(np.float16).astype(np.float32)
    moment = path.stat().st_mtime_ns // 1000
    return str(path), len(content), moment, hashlib.sha256(content).hexdigest(), tuple(stored)


def contents_of(folder: Path) -> dict[str, tuple]:
    """What an index holds of each image: path, bytes, time, content and vector."""
    index = FolderIndex(folder)
    table = index.table("images", ["id", "path", "bytes", "modified", "content"])
    table = table.set_column(3, "modified", table["modified"].cast("int64"))
    ids = table["id"].to_pylist()
    rows = zip(*(column.to_pylist() for column in table.columns[1:]), strict=True)
    vectors = index.vectors("images", ids)
    return {name: (*row, tuple(found)) for name, row, found in zip(ids, rows, vectors, strict=True)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    for number in range(5):
        found.write(f"trip/{number}.jpg", f"image {number}")
    found.write("bad.jpg", "bad image")
    assert found.update() == (Update(new=5, rejected=1), 6)
    return found


def test_only_what_is_new_or_changed_is_read(folder: Folder, monkeypatch):
    assert folder.indexed() == folder.expected() and len(folder.indexed()) == 5
    # Nothing changed: no file is opened, and no model is loaded.
    before = digests(folder.index)
    with monkeypatch.context() as patched:
        patched.setattr(folder_update, "read_ahead", None)
        assert update_index(folder.root, folder.index, MODEL, None) == Update()
    assert digests(folder.index) == before
    folder.write("new.jpg", "image 5")
    folder.write("trip/1.jpg", "image 1, changed")
    (folder.root / "trip/2.jpg").unlink()
    assert folder.update() == (Update(new=2, gone=1), 2)
    assert folder.indexed() == folder.expected() and len(folder.indexed()) == 5


def test_what_was_moved_copied_or_touched_is_not_encoded(folder: Folder):
    (folder.root / "trip").rename(folder.root / "journey")
    shutil.copy(folder.root / "journey/0.jpg", folder.root / "copy.jpg")
    os.utime(folder.root / "journey/3.jpg", (5, 5))
    assert folder.update() == (Update(known=6, gone=5), 0)
    assert folder.indexed() == folder.expected() and len(folder.indexed()) == 6


def test_images_that_exchange_their_names_keep_their_own_embeddings(folder: Folder, monkeypatch):
    for piece in (1024, 1):  # at once, and one after the other
        monkeypatch.setattr(folder_update, "_PIECE", piece)
        monkeypatch.setattr(embed, "_CHUNK", min(piece, 64))
        names = [folder.root / f"trip/{number}.jpg" for number in (0, 1)]
        contents = [path.read_text() for path in names]
        for path, content in zip(names, reversed(contents), strict=True):
            folder.write(f"trip/{path.name}", content)
        folder.update()
        assert folder.indexed() == folder.expected()


def test_a_file_that_turns_bad_is_forgotten_and_one_that_is_mended_is_found(folder: Folder):
    folder.write("trip/0.jpg", "bad as well")
    folder.write("bad.jpg", "good now")
    assert folder.update() == (Update(new=1, gone=1, rejected=1), 2)
    assert folder.indexed() == folder.expected()
    assert folder.update() == (Update(), 0)
    # Too large a file is one that cannot be embedded; one that is gone is none at all.
    with (folder.root / "trip/1.jpg").open("ab") as stream:
        stream.truncate(MAX_BYTES + 1)
    (folder.root / "trip/0.jpg").unlink()
    assert folder.update() == (Update(gone=1, rejected=1), 0)
    assert folder.update() == (Update(), 0)


def test_a_file_that_changes_while_it_is_read_waits(folder: Folder, monkeypatch):
    folder.write("busy.jpg", "half")
    folder.write("trip/4.jpg", "half as well")
    before, asked = folder.indexed(), os.fstat

    def grown(descriptor: int) -> os.stat_result:
        state = asked(descriptor)
        with (
            open(f"/proc/self/fd/{descriptor}", "rb"),
            (folder.root / "busy.jpg").open("ab") as other,
        ):
            other.write(b" and half")
        return state

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", grown)
        update, encoded = folder.update()
    assert (update.waiting, update.rejected) == (1, 0)
    assert "busy.jpg" not in folder.indexed() and before.keys() == folder.indexed().keys()
    assert folder.update() == (Update(new=1), 1)
    assert folder.indexed() == folder.expected()


def test_nothing_is_forgotten_because_it_cannot_be_read(folder: Folder, monkeypatch):
    before, scan = folder.indexed(), os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("trip"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        lost = (str(folder.root / "trip"),)
        assert folder.update() == (Update(unreadable=lost), 0)
    assert folder.indexed() == before
    # A disk that is not mounted leaves an empty folder.
    folder.root.rename(folder.root.with_name("away"))
    folder.root.mkdir()
    with raises("find.no_images", path=folder.root):
        folder.update()
    assert folder.indexed() == before


def test_odd_names_and_links(folder: Folder):
    far = folder.root.with_name("far")
    far.mkdir()
    (far / "z.jpg").write_text("image z")
    for name, target in (
        ("circle.jpg", "round"),
        ("round", "circle.jpg"),
        ("self", "."),
        ("far", far),
    ):
        (folder.root / name).symlink_to(target)
    folder.write("a b/ü 狗\n'\"[1].jpg", "image odd")
    with open(os.fsencode(folder.root) + b"/\xff.jpg", "w") as stream:
        stream.write("image of no name")
    # The link in a circle and the name that is not UTF-8 cannot be read.
    update, encoded = folder.update()
    lost = {f"{folder.root}/circle.jpg", f"{folder.root}/\udcff.jpg"}
    assert set(update.unreadable) == lost
    assert (update.new, update.rejected, encoded) == (2, 0, 2)
    assert {"far/z.jpg", "a b/ü 狗\n'\"[1].jpg"} <= folder.indexed().keys()
    assert folder.update()[1] == 0


def test_a_second_process_leaves_the_work_to_the_first(folder: Folder):
    folder.write("new.jpg", "image new")
    with exclusive_lock(folder.index / "find"):
        assert folder.update() == (None, 0)
    assert folder.update() == (Update(new=1), 1)


def test_an_index_of_something_else_is_left_alone(folder: Folder, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    with raises("find.other_index", path=folder.index):
        existing_index(other, folder.index, MODEL)
    with raises("search.other_model", path=folder.index):
        existing_index(folder.root, folder.index, "n" * 64)
    FolderIndex.create(other / "made", MODEL, DIMENSION)
    for out in (other / "made", folder.root, folder.root / "bad.jpg"):
        with raises("find.other_index", path=out):
            existing_index(folder.root, out, MODEL)
    assert existing_index(folder.root, other / "new", MODEL) is None
    assert not (other / "new").exists()


def test_the_usual_index_is_one_of_folder_and_model(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = [Path("/a/photos"), Path("/b/photos"), Path("/b/ph\u00f6/" + "n" * 200), Path("/")]
    found = {default_index(folder, model) for folder in folders for model in (MODEL, "n" * 64)}
    assert len(found) == 8 and {path.parent for path in found} == {tmp_path / "tf_dpce"}
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_index(folders[0], MODEL).parent == Path("/home/me/.cache/tf_dpce")


def test_a_full_or_read_only_disk_loses_nothing(folder: Folder):
    before = folder.indexed()
    for number in range(3):
        folder.write(f"more/{number}.jpg", f"more {number}" + 50_000 * "!")
    with read_only(folder.index):
        with pytest.raises(OSError, match="Read-only"):
            folder.update()
        assert folder.indexed() == before
    copy = folder.index.with_name("full")
    copy.mkdir()
    with mounted(copy, "size=64k"):
        shutil.copytree(folder.index, copy, dirs_exist_ok=True)
        (copy / "ballast").write_bytes(bytes(os.statvfs(copy).f_bavail * os.statvfs(copy).f_bsize))
        with pytest.raises(OSError, match="No space"):
            update_index(folder.root, copy, MODEL, PlainEncoder)
        assert contents_of(copy) == before
        (copy / "ballast").unlink()


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.process
def test_after_a_kill_at_any_moment_the_next_update_makes_the_same_index(
    project_root: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "tests.unit.search.find.killed_update", str(tmp_path / "root")]
    (tmp_path / "root").mkdir()
    answer = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    # Three pieces, each of them some files and the list of what is in force; and the deletion.
    assert int(answer.stdout) > 10
