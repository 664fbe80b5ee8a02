"""The checksums of an exported version's files."""

from __future__ import annotations

import subprocess

import pytest

from tf_dpce.export import Differs
from tf_dpce.export.checksums import CHECKSUM_FILE, check_files, read_checksums


def test_every_file_has_a_checksum_that_sha256sum_reads(exported):
    check_files(exported)
    files = {str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file()}
    assert set(read_checksums(exported)) == files - {CHECKSUM_FILE}
    command = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUM_FILE]
    subprocess.run(command, cwd=exported, check=True)


def test_files_that_changed_or_are_missing_are_named(version):
    with (version / "variables" / "variables.index").open("ab") as stream:
        stream.write(b"\0")
    (version / "model_card.md").unlink()
    with pytest.raises(Differs, match=r"model_card\.md .* variables/variables\.index"):
        check_files(version)


def test_a_list_that_lost_lines_is_noticed(version):
    path = version / CHECKSUM_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "model_card.md" not in line))
    with pytest.raises(Differs, match=r"model_card\.md"):
        check_files(version)
    path.write_text("")
    with pytest.raises(Differs, match=r"saved_model\.pb"):
        check_files(version)


def test_a_file_that_was_added_is_named(version):
    (version / "assets").mkdir(exist_ok=True)
    (version / "assets" / "more.txt").write_text("")
    with pytest.raises(Differs, match=r"assets/more\.txt"):
        check_files(version)


def test_a_damaged_list_reaches_for_no_other_file_and_a_missing_one_is_found(version):
    for line in ("no digest", "a" * 64 + "  ../other", "a" * 64 + "  /etc/hosts"):
        (version / CHECKSUM_FILE).write_text(line + "\n")
        with pytest.raises(Differs, match="line 1"):
            check_files(version)
    (version / CHECKSUM_FILE).unlink()
    with pytest.raises(Differs, match=CHECKSUM_FILE):
        check_files(version)
