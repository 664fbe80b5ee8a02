"""The checksums of an exported version's files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tf_dpce.export import Differs
from tf_dpce.export.checksums import CHECKSUM_FILE, check_files


def test_every_file_has_a_checksum_that_sha256sum_reads(exported):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert check_files(exported).startswith(f"{len(files) - 1} files")
    command = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUM_FILE]
    subprocess.run(command, cwd=exported, check=True)


def test_files_that_changed_are_missing_or_were_added_are_named(version):
    with (version / "variables" / "variables.index").open("ab") as stream:
        stream.write(b"\0")
    (version / "model_card.md").unlink()
    (version / "more.txt").touch()
    found = r"model_card\.md is missing, variables/variables\.index differs, more\.txt is not"
    with pytest.raises(Differs, match=found):
        check_files(version)


def test_a_list_that_lost_lines_or_is_damaged_is_noticed(version: Path):
    path = version / CHECKSUM_FILE
    text = path.read_text()
    shorter = "".join(line for line in text.splitlines(True) if "model_card.md" not in line)
    # A list reaches for no file outside of the version.
    outside = "a" * 64 + "  /etc/hosts\n"
    changes = {shorter: "model_card", "": "saved_model", "no digest\n" + text: "no digest"}
    for content, named in {**changes, text + outside: "/etc/hosts is missing"}.items():
        path.write_text(content)
        with pytest.raises(Differs, match=named):
            check_files(version)
    path.unlink()
    with pytest.raises(Differs, match=CHECKSUM_FILE):
        check_files(version)
