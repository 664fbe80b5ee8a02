"""The table of operations that TF Serving links, and what is refused by it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tf_dpce.errors import UserError
from tf_dpce.export.graph import Node, SavedGraph, read_graph
from tf_dpce.export.operations import (
    LIBRARIES,
    SERVING,
    Operation,
    known_operations,
    merge,
    serving_version,
    servings_with,
    write_table,
)
from tf_dpce.export.report import Differs
from tf_dpce.export.static import look_at_operations, look_at_placement

REGISTERED = """
import json
from tf_dpce.export.bare import installed_folders
from tf_dpce.export.operations import registered_operations
tensorflow, text = installed_folders()
print(json.dumps([registered_operations(tensorflow), registered_operations(tensorflow, text)]))
"""


def graph(
    *operations: str, device: str = "", needs_xla: bool = False, strings: bool = False
) -> SavedGraph:
    nodes = tuple(
        Node(f"node{place}", name, device, strings) for place, name in enumerate(operations)
    )
    return SavedGraph({}, nodes, needs_xla)


def test_table_is_what_the_installed_tensorflow_links(project_root):
    # In a process of its own: here, other operations have been loaded as well.
    command = [sys.executable, "-c", REGISTERED]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=True)
    for library, found in zip(LIBRARIES, json.loads(done.stdout), strict=True):
        version = LIBRARIES[library][-1]
        table = [row for row in known_operations().values() if row.library == library]
        assert {row.name: row.strings for row in table if row.is_in(version)} == found


def test_each_server_links_the_text_that_it_was_built_with():
    # The three operations by which 2.20.0 differs from 2.12.1 (TF Serving 2.13 to 2.19).
    added = {"TFText>RoundRobinTrim", "TFText>RoundRobinGenerateMasks", "TFText>Utf8Binarize"}
    text = {row.name for row in known_operations().values() if row.library == "text"}
    assert {name for name in text if servings_with(name) != list(SERVING)} == added
    assert {version for name in added for version in servings_with(name)} == {"2.20"}
    assert servings_with("RegexSplitWithOffsets") == servings_with("DecodeJpeg") == list(SERVING)


def test_missing_operation_is_named_with_the_first_server_that_has_it():
    wanted = graph("AddV2", "TFText>RoundRobinTrim")
    assert "2 kinds, all linked by TF Serving 2.20 to 2.20" in look_at_operations(wanted, None)
    with pytest.raises(Differs) as error:
        look_at_operations(wanted, "2.19")
    assert str(error.value) == (
        "TFText>RoundRobinTrim is not in TF Serving 2.19: 2.20 is the first that has it"
    )
    # It was taken out of TensorFlow 2.17.
    gone = next(row.name for row in known_operations().values() if row.last == "2.16")
    assert "2.13 to 2.16" in look_at_operations(graph(gone), "2.16")
    with pytest.raises(Differs, match=f"{gone} is not in TF Serving 2.20: 2.16 was the last"):
        look_at_operations(graph(gone), "2.20")
    with pytest.raises(Differs, match="Clairvoyance is in no TF Serving from 2.13 to 2.20"):
        look_at_operations(graph("Clairvoyance"), None)


def test_need_of_xla_is_found():
    with pytest.raises(Differs, match="need XLA"):
        look_at_operations(graph("AddV2", needs_xla=True), None)


def test_strings_stay_on_the_host():
    assert look_at_placement(graph("DecodeJpeg", device="/device:CPU:0")).startswith("1 operation")
    assert look_at_placement(graph("AddV2")).startswith("0 operations")
    with pytest.raises(Differs, match=r"DecodeJpeg \(node0\) has strings, and no place on a host"):
        look_at_placement(graph("DecodeJpeg"))
    with pytest.raises(Differs, match=r"AddV2 \(node0\) must run on /job:a/device:GPU:0"):
        look_at_placement(graph("AddV2", device="/job:a/device:GPU:0"))


def test_strings_by_an_attribute_stay_on_the_host_but_where_they_pass_through():
    host = graph("SelectV2", device="/device:CPU:0", strings=True)
    assert look_at_placement(host).startswith("1 operation")
    with pytest.raises(Differs, match=r"SelectV2 \(node0\) has strings, and no place on a host"):
        look_at_placement(graph("SelectV2", strings=True))
    passing = graph("Placeholder", "Identity", "Const", "StatefulPartitionedCall", strings=True)
    assert look_at_placement(passing).startswith("0 operations")
    # What always reads strings is none of these, whatever its attributes.
    with pytest.raises(Differs, match="DecodeJpeg"):
        look_at_placement(graph("DecodeJpeg", strings=False))


def test_export_is_for_every_server_of_the_table(exported):
    found = read_graph(exported)
    for version in SERVING:
        assert "TF Serving 2.13 to 2.20" in look_at_operations(found, version)


def test_server_is_told_by_its_minor_version():
    assert serving_version("2.19.1") == serving_version("2.19") == "2.19"
    for unknown in ("2.12.1", "2.21.0", "2", "latest"):
        with pytest.raises(UserError, match=f"TF Serving {unknown} is not known.* 2.13 to 2.20"):
            serving_version(unknown)


def test_table_is_merged_from_one_version_at_a_time(tmp_path):
    # In any order: A is in all, B ends with 2.14, C begins with it.
    found = {
        "2.14": {"A": False, "B": True, "C": False},
        "2.13": {"A": False, "B": True},
        "2.15": {"A": False, "C": False},
    }
    table = [Operation("T", "text", "2.20.0", "2.20.0", True)]
    for version, operations in found.items():
        table = merge(table, "core", version, operations)
    table = merge(table, "core", "2.14", found["2.14"])
    assert table == [
        Operation("A", "core", "2.13", "2.15", False),
        Operation("B", "core", "2.13", "2.14", True),
        Operation("C", "core", "2.14", "2.15", False),
        Operation("T", "text", "2.20.0", "2.20.0", True),
    ]
    write_table(tmp_path / "table.tsv", table)
    assert (tmp_path / "table.tsv").read_text().splitlines()[2] == "B\tcore\t2.13\t2.14\tstring"
    with pytest.raises(UserError, match="core 1.15 is in none of the TF Servings"):
        merge(table, "core", "1.15", {})
