"""Verification: it accepts what was exported, and finds whatever was changed since."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.export.tiny import WIDTH
from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, examples, warmup
from tf_dpce.export.examples import Examples
from tf_dpce.export.signatures import Signatures
from tf_dpce.export.verify import verify_in_fresh_process, verify_version


@pytest.fixture
def version(exported, tmp_path) -> Path:
    """A copy of the exported version, to be spoilt."""
    return shutil.copytree(exported, tmp_path / "1")


def change_examples(version: Path, endpoint: str, **changes) -> None:
    path = version / examples.FILE
    recorded = examples.load_examples(path, ENDPOINTS)
    fields = {name: getattr(recorded[endpoint], name) for name in Examples.__annotations__}
    examples.save_examples(path, {**recorded, endpoint: Examples(**{**fields, **changes})})


def recorded(version: Path, endpoint: str) -> Examples:
    return examples.load_examples(version / examples.FILE, ENDPOINTS)[endpoint]


def test_sound_export_passes_in_a_fresh_process(exported):
    report = verify_in_fresh_process(exported)
    assert report.failures == []
    assert [check.name for check in report.checks] == [
        *("load", "operations", "encode_image", "encode_text", "warm-up")
    ]


def test_changed_weight_is_found(version):
    # Written by TensorFlow itself, so that checksums are right.
    prefix = str(version / "variables" / "variables")
    saved = tf.train.load_checkpoint(prefix)
    tensors = {name: saved.get_tensor(name) for name in saved.get_variable_to_shape_map()}
    widest = max(tensors, key=lambda name: np.size(tensors[name]))
    tensors[widest] = tensors[widest] * 1.01
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    # The widest is a matrix of the image tower.
    (failure,) = verify_version(version).failures
    assert failure.startswith("encode_image: ")
    assert "differ" in failure


def test_damaged_weights_are_found(version):
    (data,) = (version / "variables").glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert verify_version(version).failures


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("difference", [2e-5, -2e-5, np.nan])
def test_recorded_vector_that_differs_is_found(version, endpoint, difference):
    embeddings = recorded(version, endpoint).embeddings.copy()
    embeddings[1, 3] += difference
    change_examples(version, endpoint, embeddings=embeddings)
    (failure,) = verify_version(version).failures
    assert failure.startswith(f"{endpoint}: ")
    assert "differ" in failure


def test_difference_of_rounding_is_accepted(version):
    embeddings = recorded(version, "encode_text").embeddings + np.float32(5e-6)
    change_examples(version, "encode_text", embeddings=embeddings)
    assert verify_version(version).failures == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_recorded_status_that_differs_is_found(version, endpoint):
    statuses = recorded(version, endpoint).statuses.copy()
    statuses[-1] = 0
    change_examples(version, endpoint, statuses=statuses)
    (failure,) = verify_version(version).failures
    assert failure.startswith(f"{endpoint}: ")
    assert "status" in failure


def test_recorded_width_that_differs_is_found(version):
    narrow = recorded(version, "encode_image").embeddings[:, : WIDTH - 1]
    change_examples(version, "encode_image", embeddings=narrow)
    assert "shape" in verify_version(version).failures[0]


def test_failing_warm_up_request_is_found(version):
    inputs = {"encode_image": "picture", "encode_text": "text"}
    recorded_examples = examples.load_examples(version / examples.FILE, ENDPOINTS)
    warmup.write_warmup(version / warmup.FILE, "tiny", inputs, recorded_examples)
    (failure,) = verify_version(version).failures
    assert failure.startswith("warm-up: ")
    assert "picture" in failure


def test_damaged_and_missing_warm_up_are_found(version):
    path = version / warmup.FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert verify_version(version).failures
    path.unlink()
    assert verify_version(version).failures


def test_need_of_xla_is_found(version):
    path = version / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    function = saved.meta_graphs[0].graph_def.library.function[0]
    function.attr["_XlaMustCompile"].b = True
    path.write_bytes(saved.SerializeToString())
    assert [line.split(":")[0] for line in verify_version(version).failures] == ["operations"]


def test_missing_endpoint_is_found(version):
    path = version / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    del saved.meta_graphs[0].signature_def["encode_text"]
    path.write_bytes(saved.SerializeToString())
    failures = verify_version(version).failures
    assert [line.split(":")[0] for line in failures] == ["encode_text", "warm-up"]
    assert "encode_text" in failures[0]


def test_export_that_only_python_can_run_is_found(version, model, caption_encoder):
    # `tf.saved_model.save` of a Keras model loads and answers in Python, and loads in a Session,
    # but finds no variables there: the trap for which exports are verified in a Session.
    module = tf.Module()
    module.model, module.table = model, caption_encoder.table
    signatures = Signatures(model, caption_encoder)
    functions = {
        name: tf.function(getattr(signatures, name)).get_concrete_function(
            tf.TensorSpec([None], tf.string, name=key)
        )
        for name, key in ENDPOINTS.items()
    }
    module.functions = list(functions.values())
    tf.saved_model.save(module, str(version), signatures=functions)
    loaded = tf.saved_model.load(str(version))
    assert loaded.signatures["encode_text"](text=tf.constant(["a dog"]))["status"] == [0]

    failures = verify_version(version).failures

    assert failures
    assert "Could not find variable" in failures[0]


def test_folder_without_an_export_is_a_users_mistake(version):
    with pytest.raises(UserError, match="holds no saved_model.pb"):
        verify_version(version / "variables")
    (version / examples.FILE).write_bytes(b"no zip")
    with pytest.raises(UserError, match="examples.npz cannot be read"):
        verify_version(version)
    (version / examples.FILE).unlink()
    with pytest.raises(UserError, match="examples.npz does not exist"):
        verify_version(version)


def test_process_that_dies_is_a_failure(tmp_path):
    (failure,) = verify_in_fresh_process(tmp_path).failures
    assert "holds no saved_model.pb" in failure


def test_verification_knows_no_code_of_the_model(project_root):
    code = "import sys, tf_dpce.export.verify; print([m for m in sys.modules if 'tf_dpce.' in m])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in ast.literal_eval(done.stdout)}
    assert rooms == {"errors", "export", "files"}
