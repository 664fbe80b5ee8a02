"""The files of an exported version, read without TensorFlow: digests, graph, warm-up."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_dpce.export.graph import read_graph
from tf_dpce.export.replay import FILE as WARMUP
from tf_dpce.export.replay import read_warmup
from tf_dpce.export.report import Differs
from tf_dpce.export.seal import FILE as SEAL
from tf_dpce.export.seal import broken_files, read_seal
from tf_dpce.export.static import look_at_files, look_at_shapes


@pytest.fixture
def version(exported, tmp_path):
    """A copy of the exported version, to be spoilt."""
    return shutil.copytree(exported, tmp_path / "1")


@pytest.fixture(scope="module")
def saved(exported) -> SavedModel:
    """The graph as TensorFlow's own code reads it."""
    return SavedModel.FromString((exported / "saved_model.pb").read_bytes())


def test_every_file_has_a_digest_that_sha256sum_checks(version):
    files = {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()}
    assert set(read_seal(version)) == files - {str(SEAL)}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SEAL], cwd=version, check=True)


def test_file_that_changed_is_named(version):
    assert look_at_files(version) == "7 files are as they were made"
    with (version / "variables" / "variables.index").open("ab") as stream:
        stream.write(b"\0")
    (version / "model_card.md").unlink()
    assert list(broken_files(version)) == [
        "model_card.md is missing",
        "variables/variables.index differs",
    ]
    with pytest.raises(
        Differs, match="model_card.md is missing, variables/variables.index differs"
    ):
        look_at_files(version)


def test_a_list_that_lost_lines_is_noticed(version):
    seal = version / SEAL
    lines = seal.read_text().splitlines(keepends=True)
    (version / "model_card.md").write_text("another")
    seal.write_text("".join(line for line in lines if "model_card.md" not in line))
    assert list(broken_files(version)) == ["model_card.md is not in files.sha256"]
    seal.write_text("")
    with pytest.raises(Differs, match="saved_model.pb is not in files.sha256"):
        look_at_files(version)


def test_a_file_that_was_added_is_named(version):
    (version / "assets" / "more.txt").parent.mkdir(exist_ok=True)
    (version / "assets" / "more.txt").write_text("")
    assert list(broken_files(version)) == ["assets/more.txt is not in files.sha256"]


def test_files_without_digests_are_not_trusted(version):
    (version / SEAL).unlink()
    with pytest.raises(Differs, match="there is no files.sha256"):
        look_at_files(version)


@pytest.mark.parametrize("line", ["no digest", "a" * 64 + "  ../other", "a" * 64 + "  /etc/hosts"])
def test_damaged_list_of_digests_reaches_for_no_other_file(version, line):
    (version / SEAL).write_text(line + "\n")
    with pytest.raises(ValueError, match="files.sha256, line 1"):
        look_at_files(version)


def test_graph_is_read_as_tensorflow_reads_it(exported, saved):
    graph = read_graph(exported)
    definition = saved.meta_graphs[0].graph_def
    functions = definition.library.function
    nodes = [*definition.node, *(node for f in functions for node in f.node_def)]
    assert sorted((n.name, n.operation, n.device) for n in graph.nodes) == sorted(
        (node.name, node.op, node.device) for node in nodes
    )
    assert not graph.needs_xla


def test_signatures_are_read_as_tensorflow_reads_them(exported, saved):
    wanted = saved.meta_graphs[0].signature_def
    found = read_graph(exported).signatures
    assert set(found) == {name for name in wanted if not name.startswith("__")}
    for name, signature in found.items():
        for tensors, expected in (
            (signature.inputs, wanted[name].inputs),
            (signature.outputs, wanted[name].outputs),
        ):
            assert {key: (t.name, t.dtype, t.shape) for key, t in tensors.items()} == {
                key: (t.name, t.dtype, tuple(d.size for d in t.tensor_shape.dim))
                for key, t in expected.items()
            }


@pytest.mark.parametrize("place", ["function", "node"])
def test_need_of_xla_is_seen(version, saved, place):
    changed = SavedModel()
    changed.CopyFrom(saved)
    function = changed.meta_graphs[0].graph_def.library.function[0]
    item = function if place == "function" else function.node_def[0]
    # False is what `jit_compile=False` leaves there.
    for value in (False, True):
        item.attr["_XlaMustCompile"].b = value
        (version / "saved_model.pb").write_bytes(changed.SerializeToString())
        assert read_graph(version).needs_xla == value


def test_signature_that_cannot_be_batched_is_found(version, saved):
    assert look_at_shapes(read_graph(version)).startswith("3 signatures")
    changed = SavedModel()
    changed.CopyFrom(saved)
    signature = changed.meta_graphs[0].signature_def["encode_text"]
    signature.outputs["status"].tensor_shape.Clear()
    (version / "saved_model.pb").write_bytes(changed.SerializeToString())
    with pytest.raises(Differs, match=r"encode_text gives status of shape \(\), no batch"):
        look_at_shapes(read_graph(version))
    signature.inputs["text"].tensor_shape.dim[0].size = 8
    (version / "saved_model.pb").write_bytes(changed.SerializeToString())
    with pytest.raises(Differs, match=r"encode_text takes text of shape \(8,\)"):
        look_at_shapes(read_graph(version))


def test_warm_up_is_read_as_tf_serving_reads_it(exported):
    wanted = []
    for record in tf.data.TFRecordDataset(str(exported / WARMUP)).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        inputs = {key: tf.make_ndarray(value).tolist() for key, value in request.inputs.items()}
        wanted.append((request.model_spec.signature_name, inputs))
    assert list(read_warmup(exported / WARMUP)) == wanted
