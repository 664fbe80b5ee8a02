"""Files are whole or absent, also when the writer fails or is killed."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.files import (
    exclusive_lock,
    is_temporary,
    publish_file,
    publish_folder,
    read_json,
    remove_stale,
    write_json,
)


class Failure(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_file_is_published_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with publish_file(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    with pytest.raises(Failure), publish_file(path) as temporary:
        temporary.write_text("half")
        raise Failure
    with pytest.raises(OSError, match="table.csv"), publish_file(path):
        # A device that refuses every byte; what `write` raises names no file.
        with open("/dev/full", "w") as full:
            full.write("half")
    assert path.read_text() == "second" and names(path.parent) == ["table.csv"]


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "models" / "1"
    with pytest.raises(Failure), publish_folder(path) as temporary:
        (temporary / "half").write_text("w")
        raise Failure
    assert names(path.parent) == []
    with publish_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "weights").write_text("w")
        assert not path.exists()
    assert (path / "inner" / "weights").read_text() == "w"
    # One that exists is not touched.
    with raises("file.exists", path), publish_folder(path) as temporary:
        (temporary / "theirs").write_text("t")
    assert names(path.parent) == ["1"] and names(path) == ["inner"]


WRITER = """
import os, signal, sys
from pathlib import Path
from tf_dpce.files import publish_file, publish_folder
# In two containers both may be number 1.
os.getpid = lambda: 1
out = Path(sys.argv[1])
with publish_folder(out / '2') as folder, publish_file(out / 'a.b.json') as file:
    (folder / 'half').write_text('h')
    file.write_text(sys.argv[2])
    print("written", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that write to the same names, as far as they can before their input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    started = [subprocess.Popen([*command, text], **pipes) for text in ("one", "two")]
    try:
        assert [each.stdout.readline() for each in started] == ["written\n"] * 2
        yield started
    finally:
        for each in started:
            with each:
                each.kill()


def test_what_a_killed_writer_left_aside_is_removed_and_a_living_one_keeps_its_own(
    writers: list[subprocess.Popen[str]], tmp_path: Path
):
    (tmp_path / "other.tmp").write_text("of somebody else")
    assert len(names(tmp_path)) == 5, "each has a name of its own"
    assert all(is_temporary(name) for name in names(tmp_path) if name != "other.tmp")
    remove_stale(tmp_path)
    assert len(names(tmp_path)) == 5
    writers[0].kill()
    writers[0].wait()
    assert len(names(tmp_path)) == 5
    remove_stale(tmp_path)
    assert len(names(tmp_path)) == 3
    writers[1].communicate("go on\n")
    assert writers[1].returncode == 0
    assert names(tmp_path) == ["2", "a.b.json", "other.tmp"]
    assert (tmp_path / "a.b.json").read_text() == "two"


def test_what_is_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch):
    made, lock = [], fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not made:
            made.extend(names(tmp_path))
            remove_stale(tmp_path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with publish_file(tmp_path / "mine") as temporary:
        temporary.write_text("m")
        assert len(made) == 1 and names(tmp_path) == [temporary.name] != made
    assert names(tmp_path) == ["mine"]


def test_a_folder_has_one_writer_at_a_time_and_a_killed_one_holds_nobody_up(tmp_path: Path):
    with exclusive_lock(tmp_path):
        with raises("file.locked", tmp_path), exclusive_lock(tmp_path):
            pass
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tf_dpce.files import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    with exclusive_lock(tmp_path):
        assert names(tmp_path) == [], "and nothing is left of it"


REWRITER = """
import itertools, sys
from pathlib import Path
from tf_dpce.files import publish_file
print("started", flush=True)
for letter in itertools.cycle((b"a", b"b")):
    with publish_file(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(2**20 * letter)
"""


@pytest.mark.full
def test_no_reader_sees_half_a_file_whenever_the_writer_is_killed(tmp_path: Path):
    path = tmp_path / "table"
    path.write_bytes(2**20 * b"a")
    for _ in range(5):
        command = [sys.executable, "-c", REWRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"started\n"
            for reading in range(51):
                if reading == 50:
                    writer.kill()
                    writer.wait()
                assert path.read_bytes() in (2**20 * b"a", 2**20 * b"b")
        remove_stale(tmp_path)
        assert names(tmp_path) == ["table"]


def test_json_comes_back_as_it_went_and_what_is_none_is_named(tmp_path: Path):
    path = tmp_path / "value.json"
    with raises("file.missing", path):
        read_json(path)
    value = {"words": ["Hündchen", "犬"], "share": 0.1, "none": None, "nested": {"n": [1, 2]}}
    write_json(path, value)
    assert read_json(path) == value
    for contents, line in ((b"", 1), (b'{\n"a": }', 2), (b"\xff\xfe{}", None)):
        path.write_bytes(contents)
        with raises("file.json", path, line):
            read_json(path)
