"""Versions of a model: numbered, and whole or absent whenever a process is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.errors import raises
from tf_dpce.export.versions import find_version, publish_version, version_numbers
from tf_dpce.files import exclusive_lock

PUBLISH = """
import sys
from pathlib import Path
from tf_dpce.export.versions import publish_version
for _ in range(10):
    publish_version(Path(sys.argv[1]), lambda f: (f / "a").write_text("a" * 1000))
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from tf_dpce.export import versions
folder, moment = Path(sys.argv[1]), sys.argv[2]
real = versions.flush
def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)
def write(aside):
    (aside / "saved_model.pb").write_text("x")
    if moment == "write":
        die()
if moment == "flush":
    versions.flush = die
if moment == "rename":
    versions.os.rename = die
if moment == "end":
    versions.flush = lambda path: die() if path == folder else real(path)
versions.publish_version(folder, write)
"""


def publish(folder: Path) -> Path:
    return publish_version(folder, lambda aside: (aside / "saved_model.pb").write_text("x"))


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_versions_are_the_next_integers_and_the_newest_is_found(tmp_path):
    for number in range(1, 12):
        assert publish(tmp_path).name == str(number)
    # By number: as text, 9 would come last.
    assert find_version(tmp_path).name == "11"
    assert find_version(tmp_path / "3").name == "3"
    (tmp_path / "20").mkdir()
    (tmp_path / "notes").mkdir()
    for path, missing in ((tmp_path, "20"), (tmp_path / "nowhere", ""), (tmp_path / "20", "")):
        with raises("export.missing", path / missing):
            find_version(path)
    assert publish(tmp_path).name == "21"


def test_what_is_no_version_is_passed_over_but_keeps_its_number(tmp_path):
    publish(tmp_path)
    # TF Serving would read 007 as 7, and counts in int64.
    (tmp_path / "007").mkdir()
    (tmp_path / "9").touch()
    (tmp_path / "9223372036854775808").mkdir()
    assert version_numbers(tmp_path) == [1]
    assert find_version(tmp_path).name == "1"
    assert publish(tmp_path).name == "10"
    (tmp_path / "9223372036854775807").mkdir()
    with raises("export.largest_version", tmp_path):
        publish(tmp_path)


def test_an_export_is_locked_while_it_is_written(tmp_path):
    def write(aside: Path) -> None:
        with raises("file.locked"), exclusive_lock(aside):
            pass
        # So another one that begins meanwhile leaves it alone.
        assert publish(tmp_path).name == "1"
        assert names(tmp_path) == [aside.name, "1"]

    assert publish_version(tmp_path, write).name == "2"
    assert names(tmp_path) == ["1", "2"]


def test_processes_that_publish_at_once_get_a_number_each(tmp_path, project_root):
    command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=project_root) for _ in range(3)]
    assert [process.wait() for process in running] == [0] * 3
    assert sorted(map(int, names(tmp_path))) == list(range(1, 31))
    assert all(names(item) == ["a"] for item in tmp_path.iterdir())


def test_a_version_is_whole_or_absent_whenever_its_process_is_killed(tmp_path, project_root):
    moments = {"write": [], "flush": [], "rename": [], "end": [1]}
    for moment, left in moments.items():
        folder = tmp_path / moment
        command = [sys.executable, "-c", KILLED, str(folder), moment]
        assert subprocess.run(command, cwd=project_root).returncode == -signal.SIGKILL
        assert version_numbers(folder) == left
        assert all((folder / str(number) / "saved_model.pb").is_file() for number in left)
        # The next one removes what was left, and has the next number.
        publish(folder)
        assert names(folder) == [str(number) for number in range(1, len(left) + 2)]
