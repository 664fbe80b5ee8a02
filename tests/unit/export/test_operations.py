"""Checks of an exported graph's operations, and the table behind them."""

from __future__ import annotations

import json

import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from tests.errors import raises
from tf_dpce.export import Differs
from tf_dpce.export.operations import (
    NEWEST,
    SERVING,
    check_operations,
    check_placement,
    known_operations,
    read_meta_graph,
    serving_version,
    servings_with,
)

# Prints the operations of the installed TensorFlow and TensorFlow Text, each with whether it always
# reads or writes strings. In a process of its own: here, others have been registered as well.
REGISTERED = """
import json, sys
import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.python.client.pywrap_tf_session import TF_GetAllOpList, TF_GetBuffer

def listed():
    return {
        op.name: any(arg.type == DT_STRING for arg in (*op.input_arg, *op.output_arg))
        for op in OpList.FromString(TF_GetBuffer(TF_GetAllOpList())).op
    }

core = listed()
# Python registers operations of TensorFlow's own tests as well, and TF Serving links TensorFlow
# Text without its metrics.
private = core.keys() - dir(tf.raw_ops) - set(sys.argv[1:]) | {"RougeL"}
import tensorflow_text
print(json.dumps({name: strings for name, strings in listed().items() if name not in private}))
"""


def graph(*operations: str, device: str = "", strings: bool = False) -> MetaGraphDef:
    """A graph of one function with these operations."""
    meta_graph = MetaGraphDef()
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "function"
    for number, name in enumerate(operations):
        node = function.node_def.add(name=f"node{number}", op=name, device=device)
        if strings:
            node.attr["T"].type = types_pb2.DT_STRING
    meta_graph.graph_def.node.add(name="call", op="function")
    return meta_graph


@pytest.fixture
def meta_graph(exported) -> MetaGraphDef:
    return read_meta_graph(exported)


def test_an_export_passes_for_every_server_of_the_table(meta_graph):
    for version in SERVING:
        assert "2.13 to 2.20" in check_operations(meta_graph, version)
    check_placement(meta_graph)


@pytest.mark.process
def test_table_is_what_the_installed_tensorflow_registers(run_program):
    done = run_program(REGISTERED, *known_operations())
    table = [row for row in known_operations().values() if row.last == NEWEST]
    assert {row.name: row.strings for row in table} == json.loads(done.stdout)


def test_each_server_links_the_text_that_it_was_built_with():
    # The three operations by which 2.20.0 differs from 2.12.1 (TF Serving 2.13 to 2.19).
    for name in ("TFText>RoundRobinTrim", "TFText>RoundRobinGenerateMasks", "TFText>Utf8Binarize"):
        assert servings_with(name) == ("2.20",)
    for name in ("RegexSplitWithOffsets", "FastBertNormalize", "DecodeJpeg"):
        assert servings_with(name) == SERVING


def test_operations_that_the_server_lacks_are_named_with_the_servers_that_have_them():
    wanted = graph("AddV2", "TFText>RoundRobinTrim")
    assert "2 kinds" in check_operations(wanted)
    # It was taken out of TensorFlow 2.17.
    gone = next(row.name for row in known_operations().values() if row.last == "2.16")
    assert "2.13 to 2.16" in check_operations(graph(gone), "2.16")
    for meta_graph, serving, name, having in (
        (wanted, "2.19", "TFText>RoundRobinTrim", "2.20 to 2.20"),
        (graph(gone), "2.20", gone, "2.13 to 2.16"),
        (graph("Clairvoyance"), None, "Clairvoyance", "none"),
    ):
        with pytest.raises(Differs) as caught:
            check_operations(meta_graph, serving)
        assert name in str(caught.value) and having in str(caught.value)


def test_need_of_xla_is_found(meta_graph):
    function = meta_graph.graph_def.library.function[0]
    for item in (function, function.node_def[0]):
        # False is what `jit_compile=False` leaves there.
        for needed in (False, True, False):
            item.attr["_XlaMustCompile"].b = needed
            if not needed:
                check_operations(meta_graph)
                continue
            with pytest.raises(Differs, match="XLA"):
                check_operations(meta_graph)


def test_operations_with_strings_must_stay_on_the_cpu():
    cpu, gpu = "/device:CPU:0", "/job:a/device:GPU:0"
    for count, accepted in (
        (1, graph("DecodeJpeg", device=cpu)),
        (0, graph("AddV2")),
        # By an attribute; some operations pass strings on wherever they are.
        (1, graph("SelectV2", device=cpu, strings=True)),
        (0, graph("Placeholder", "Identity", "StatefulPartitionedCall", strings=True)),
    ):
        assert check_placement(accepted).startswith(f"{count} operations")
    types = graph("TensorSliceDataset")
    types.graph_def.library.function[0].node_def[0].attr["T"].list.type.append(types_pb2.DT_STRING)
    for name, refused in (
        ("DecodeJpeg", graph("DecodeJpeg")),
        ("AddV2", graph("AddV2", device=gpu)),
        ("SelectV2", graph("SelectV2", strings=True)),
        ("TensorSliceDataset", types),
    ):
        with pytest.raises(Differs, match=name):
            check_placement(refused)


def test_server_is_chosen_by_its_minor_version():
    assert serving_version("2.19.1") == serving_version("2.19") == "2.19"
    for unknown in ("2.12.1", "2.21.0", "2", "latest"):
        with raises("verify.serving_version"):
            serving_version(unknown)
