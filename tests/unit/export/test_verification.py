"""Verification: it accepts what was exported, and finds whatever was changed since."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.unit.export.tiny import WIDTH
from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, examples, process, replay, warmup
from tf_dpce.export.examples import Examples
from tf_dpce.export.graph import read_graph
from tf_dpce.export.process import ModelError, ModelProcess, open_process
from tf_dpce.export.report import Differs
from tf_dpce.export.seal import FILE as SEAL
from tf_dpce.export.seal import write_seal
from tf_dpce.export.signatures import Signatures
from tf_dpce.export.static import look_at_placement
from tf_dpce.export.verify import check_calls, verify_version

CHECKS = [
    *("files", "operations", "placement", "batching", "load"),
    *("encode_image", "encode_text", "serving_default", "warm-up"),
]

# Run at the start of every Python below a folder on its path.
BLOCK = """
import builtins, os
imported = builtins.__import__
def refuse(name, *rest, **more):
    if name.split(".")[0] in os.environ["BLOCKED"].split():
        raise ImportError(f"{name} is blocked")
    return imported(name, *rest, **more)
builtins.__import__ = refuse
"""


@pytest.fixture
def version(exported, tmp_path) -> Path:
    """A copy of the exported version, to be spoilt."""
    return shutil.copytree(exported, tmp_path / "1")


@pytest.fixture(scope="module")
def served(exported) -> Iterator[ModelProcess]:
    """The version as it was exported, in a process of its own."""
    with open_process(exported, bare=True) as opened:
        yield opened


def failures(version: Path) -> list[str]:
    """What verification finds in a version whose change left no trace in its digests."""
    write_seal(version)
    return verify_version(version, bare=True).failures


def failed_calls(served: ModelProcess, version: Path) -> list[str]:
    """What the calls find, of another version's examples and warm-up."""
    recorded = examples.load_examples(version / examples.FILE, ENDPOINTS)
    checks = check_calls(served, version, recorded)
    return [f"{check.name}: {check.finding}" for check in checks if not check.passed]


def change_graph(version: Path, change: Callable[[GraphDef, SavedModel], None]) -> None:
    path = version / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0].graph_def, saved)
    path.write_bytes(saved.SerializeToString())


def change_examples(version: Path, endpoint: str, **changes) -> None:
    path = version / examples.FILE
    recorded = examples.load_examples(path, ENDPOINTS)
    fields = {name: getattr(recorded[endpoint], name) for name in Examples.__annotations__}
    examples.save_examples(path, {**recorded, endpoint: Examples(**{**fields, **changes})})


def recorded(version: Path, endpoint: str) -> Examples:
    return examples.load_examples(version / examples.FILE, ENDPOINTS)[endpoint]


@pytest.mark.parametrize(
    ("bare", "blocked"), [(False, "tf_dpce"), (True, "tf_dpce tensorflow tensorflow_text keras")]
)
def test_sound_export_passes_in_a_process_without_the_code_that_made_it(
    exported, tmp_path, monkeypatch, bare, blocked
):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BLOCKED", blocked)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", f"import {blocked.split()[-1]}"], check=True)

    report = verify_version(exported, bare=bare)

    assert report.failures == []
    assert [check.name for check in report.checks] == CHECKS


def test_verification_needs_no_tensorflow_of_python(exported, project_root, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "BLOCKED": "tensorflow tensorflow_text keras",
    }
    command = [sys.executable, "-m", "pipelines.verify", str(exported), "--bare"]
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr


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
    found = failures(version)
    assert [line.split(":")[0] for line in found] == ["encode_image", "serving_default"]
    assert "differ" in found[0]


def test_damaged_weights_are_found(version):
    (data,) = (version / "variables").glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert any("differ" in line or "load" in line for line in failures(version))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("difference", [2e-5, -2e-5, np.nan])
def test_recorded_vector_that_differs_is_found(served, version, endpoint, difference):
    embeddings = recorded(version, endpoint).embeddings.copy()
    embeddings[1, 3] += difference
    change_examples(version, endpoint, embeddings=embeddings)
    failure = failed_calls(served, version)[0]
    assert failure.startswith(f"{endpoint}: ")
    assert "differ" in failure


def test_difference_of_rounding_is_accepted(served, version):
    embeddings = recorded(version, "encode_text").embeddings + np.float32(5e-6)
    change_examples(version, "encode_text", embeddings=embeddings)
    assert failed_calls(served, version) == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_recorded_status_that_differs_is_found(served, version, endpoint):
    statuses = recorded(version, endpoint).statuses.copy()
    statuses[-1] = 0
    change_examples(version, endpoint, statuses=statuses)
    failure = failed_calls(served, version)[0]
    assert failure.startswith(f"{endpoint}: ")
    assert "status" in failure


def test_recorded_width_that_differs_is_found(served, version):
    narrow = recorded(version, "encode_image").embeddings[:, : WIDTH - 1]
    change_examples(version, "encode_image", embeddings=narrow)
    assert "shape" in failed_calls(served, version)[0]


class BatchMinded(tf.Module):
    """Endpoints whose rows are right but in batches of one size: a server would mix strangers."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.functions = {
            name: tf.function(
                lambda strings, size=size: self.answer(strings, size)
            ).get_concrete_function(tf.TensorSpec([None], tf.string, name=key_of(name)))
            for name, size in sizes.items()
        }

    def answer(self, strings: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
        count = tf.size(strings)
        lengths = tf.cast(tf.strings.length(strings), tf.float32)
        wrong = tf.cast(count == size, tf.float32)
        vectors = tf.stack([lengths, lengths + wrong], axis=1)
        return {"embedding": vectors, "status": tf.zeros_like(lengths, tf.int32)}


def key_of(name: str) -> str:
    return ENDPOINTS.get(name, "text")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_rows_that_depend_on_their_batch_are_found(tmp_path):
    # No export has these by itself: batches of 1,000 are not tried.
    sizes = {"encode_image": 64, "encode_text": 7, "alone": 1, "sound": 1_000}
    module, version = BatchMinded(sizes), tmp_path / "1"
    tf.saved_model.save(module, str(version), signatures=module.functions)
    inputs = tuple(b"x" * number for number in range(9))
    lengths = np.arange(9, dtype=np.float32)
    alike = Examples(inputs, np.stack([lengths] * 2, axis=1), np.zeros(9, np.int32))
    with open_process(version, bare=True) as served:
        checks = check_calls(served, version, dict.fromkeys(ENDPOINTS, alike))
        found = {check.name: check for check in checks}
    for name, size in sizes.items():
        assert found[name].passed == (name == "sound")
        if name != "sound":
            assert found[name].finding.startswith(f"in a batch of {size}, examples [")
            assert found[name].finding.endswith("differ from the recorded by 1.0e+00")
    assert found["sound"].finding.endswith("in batches of 64, 7, 1 and none")


def test_failing_warm_up_request_is_found(served, version):
    inputs = {"encode_image": "image", "encode_text": "text"}
    recorded_examples = examples.load_examples(version / examples.FILE, ENDPOINTS)
    warmup.write_warmup(version / replay.FILE, "tiny", inputs, recorded_examples)
    (failure,) = failed_calls(served, version)
    assert failure.startswith("warm-up: ")
    assert "image" in failure


def test_damaged_empty_and_missing_warm_up_are_found(served, version):
    path = version / replay.FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert failed_calls(served, version) == ["warm-up: ValueError: a record is cut short"]
    path.write_bytes(b"")
    assert failed_calls(served, version) == ["warm-up: no requests"]
    path.unlink()
    assert failed_calls(served, version)[0].startswith("warm-up: FileNotFoundError")


def test_damaged_file_is_found_by_its_name(version):
    card = version / "model_card.md"
    card.write_text(card.read_text().replace("tiny", "huge"))
    (version / "fingerprint.pb").unlink()
    assert verify_version(version, bare=True).failures == [
        "files: fingerprint.pb is missing, model_card.md differs"
    ]
    (version / SEAL).unlink()
    assert "there is no files.sha256" in verify_version(version, bare=True).failures[0]


def test_missing_endpoint_is_found(version):
    change_graph(version, lambda _, saved: saved.meta_graphs[0].signature_def.pop("encode_text"))
    found = failures(version)
    assert [line.split(":")[0] for line in found] == ["encode_text", "warm-up"]
    assert "encode_text" in found[0]


@pytest.mark.parametrize(
    "operation",
    ["SelectV2", "ConcatV2", "LookupTableFindV2", "HashTableV2", "LookupTableImportV2"]
    # Its types are a list.
    + ["TensorSliceDataset"],
)
def test_strings_by_an_attribute_that_may_leave_the_host_are_found(version, operation):
    def move(graph: GraphDef, _: SavedModel) -> None:
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        for node in nodes:
            if node.op == operation:
                node.device = ""

    assert look_at_placement(read_graph(version))
    change_graph(version, move)
    with pytest.raises(Differs, match=rf"^{operation} \(\S+\) has strings, and no place on a host"):
        look_at_placement(read_graph(version))


def test_operation_that_no_server_has_is_found_before_it_is_loaded(version):
    change_graph(version, lambda graph, _: graph.node.add(name="new", op="TFText>Clairvoyance"))
    found = failures(version)
    assert found[0] == "operations: TFText>Clairvoyance is in no TF Serving from 2.13 to 2.20"
    assert found[1].startswith("load: ") and "TFText>Clairvoyance" in found[1]


def test_file_that_is_no_graph_is_found(version):
    (version / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert [line.split(":")[0] for line in failures(version)] == ["graph"]
    (version / "saved_model.pb").write_bytes(b"")
    assert failures(version) == ["graph: ValueError: no graph has the tag 'serve'"]


def test_process_that_dies_is_a_failure(version, monkeypatch):
    # Without its installed packages, Python does not even find numpy.
    monkeypatch.setenv("PYTHONHOME", str(version))
    (failure,) = verify_version(version, bare=True).failures
    assert failure.startswith("load: the process ended with status 1")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_graph_that_never_ends_is_not_waited_for(tmp_path, monkeypatch):
    module = tf.Module()

    def count(text: tf.Tensor) -> dict[str, tf.Tensor]:
        never = tf.while_loop(lambda i: i >= 0, lambda i: [1 - i], [tf.size(text)])
        return {"status": tf.nest.flatten(never)[0]}

    strings = tf.TensorSpec([None], tf.string, name="text")
    module.endless = tf.function(count, autograph=False).get_concrete_function(strings)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"encode_text": module.endless})
    with open_process(tmp_path / "1", bare=True) as served:
        monkeypatch.setattr(process, "PATIENCE_SECONDS", 1)
        for _ in range(2):
            with pytest.raises(ModelError, match="^no answer within 1 seconds: it may never end$"):
                served.run("encode_text", {"text": [b"a dog"]})


def test_export_that_only_python_can_run_is_found(version, model, tokenizer):
    # `tf.saved_model.save` of a Keras model loads and answers in Python, and loads in a Session,
    # but finds no variables there: the trap for which exports are verified in a Session.
    signatures = Signatures(model, tokenizer)
    module = tf.Module()
    module.encoders = [signatures._image_encoder, signatures._text_encoder]
    module.table = tokenizer.table
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

    assert any("Could not find variable" in line for line in failures(version))


def test_folder_without_an_export_is_a_users_mistake(version):
    with pytest.raises(UserError, match="holds no saved_model.pb"):
        verify_version(version / "variables")
    (version / examples.FILE).write_bytes(b"no zip")
    with pytest.raises(UserError, match="examples.npz cannot be read"):
        verify_version(version)
    (version / examples.FILE).unlink()
    with pytest.raises(UserError, match="examples.npz does not exist"):
        verify_version(version)
