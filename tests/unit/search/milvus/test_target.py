"""Where an index in Milvus is, read from what a user types; no Milvus is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.search.milvus import connection
from tf_dpce.search.milvus.connection import Connection, Target, is_milvus


def test_addresses_and_files_of_databases_are_no_folders():
    for target in ("http://h", "https://h:1#x", "HTTP://h", "x.db", "a/x.db#name", Path("x.db")):
        assert is_milvus(target), target
    for target in ("x", "x.db/y", "http", "x.db#a/b", "https.d/x", Path("x.dbs")):
        assert not is_milvus(target), target


def test_a_target_has_an_address_and_a_name():
    for target, parsed in {
        "http://h:19530": Target("http://h:19530", "tf_dpce", False),
        "https://h/database#beach_2": Target("https://h/database", "beach_2", False),
        # What `Path` makes of the two slashes.
        Path("http://h:1#x"): Target("http://h:1", "x", False),
        "a/x.db#x": Target("a/x.db", "x", True),
        Path("x.db"): Target("x.db", "tf_dpce", True),
    }.items():
        assert Target.parse(target) == parsed


@pytest.mark.parametrize(
    "target",
    [
        *("http://", "http://:19530", "http://h:99999", "http://h:x", "http://[h"),
        *("http://me:secret@h", "https://token@h#x"),
        *("http://h#a-b", "x.db#1x", f"x.db#{'x' * 201}", "x.db#Größe"),
    ],
)
def test_what_is_no_address_is_refused(target: str):
    with raises("milvus.address") as error:
        Target.parse(target)
    assert "secret" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(connection, "find_spec", lambda name: None)
    for target in ("http://h:1", f"{tmp_path}/x.db"):
        with raises("milvus.package") as error:
            Connection(Target.parse(target), create=True)
        assert "requirements-milvus.txt" in str(error.value)
    assert list(tmp_path.iterdir()) == []
