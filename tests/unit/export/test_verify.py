"""Verification: it accepts what was exported, and finds whatever was changed since."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.unit.export.tiny import WIDTH
from tf_dpce.export import ENDPOINTS, SIGNATURES, golden, session_process
from tf_dpce.export.checksums import write_checksums
from tf_dpce.export.golden import WARMUP_FILE, Examples, load_examples, write_warmup
from tf_dpce.export.serving_module import ServingModule, input_signature
from tf_dpce.export.session_process import ModelError, answer_calls, run_calls
from tf_dpce.export.verify import check_answers, verify_version
from tf_dpce.export.versions import MODEL_FILE

CHECKS = [
    *("files", "operations", "placement", "load"),
    *("encode_image", "encode_text", "serving_default", "warm-up"),
]

# Run at the start of every Python below a folder on its path.
BLOCK = """
import builtins
imported = builtins.__import__
def refuse(name, *rest, **more):
    if name.split(".")[0] == "tf_dpce":
        raise ImportError(f"{name} is blocked")
    return imported(name, *rest, **more)
builtins.__import__ = refuse
"""


@pytest.fixture(scope="module")
def run(exported):
    """Answers calls as they are recorded, without a Session; of another input, with an error."""
    recorded = load_examples(exported)

    def answer(signature: str, inputs: dict) -> dict | str:
        endpoint = SIGNATURES[signature]
        if list(inputs) != [ENDPOINTS[endpoint]]:
            return "ValueError: another input"
        rows = [recorded[endpoint].inputs.index(row) for row in inputs[ENDPOINTS[endpoint]]]
        return {
            "embedding": recorded[endpoint].embeddings[rows],
            "status": recorded[endpoint].statuses[rows],
        }

    return lambda version, calls: [answer(*call) for call in calls]


def failures(version: Path, run=answer_calls, **changes: Examples) -> dict[str, str]:
    """What the answers of a version fail, by the names of the checks."""
    examples = {**load_examples(version), **changes}
    checks = check_answers(version, examples, run)
    return {check.name: check.finding for check in checks if not check.passed}


def change_graph(version: Path, change) -> None:
    saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
    change(saved.meta_graphs[0])
    (version / MODEL_FILE).write_bytes(saved.SerializeToString())


@pytest.mark.process
@pytest.mark.sentinel
def test_sound_export_passes_in_a_process_without_the_code_that_made_it(
    exported, tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", "import tf_dpce"], check=True, capture_output=True)

    checks = verify_version(exported)

    assert [check.finding for check in checks if not check.passed] == []
    assert [check.name for check in checks] == CHECKS


@pytest.mark.full
def test_other_exports_answer_as_their_models(stretched, half):
    # The examples of `half` are the answers of the model with rounded weights.
    for folder in (stretched, half):
        assert failures(folder) == {}


def test_recorded_examples_that_differ_are_found(exported, run):
    recorded = load_examples(exported)
    for endpoint in ENDPOINTS:
        check = partial(lambda name, example: failures(exported, run, **{name: example}), endpoint)
        example = recorded[endpoint]
        assert check(replace(example, embeddings=example.embeddings + np.float32(5e-6))) == {}
        changed = [replace(example, embeddings=example.embeddings[:, : WIDTH - 1])]
        for difference in (2e-5, -2e-5, np.nan):
            embeddings = example.embeddings.copy()
            embeddings[1, 3] += difference
            changed.append(replace(example, embeddings=embeddings))
        statuses = example.statuses.copy()
        statuses[-1] = 0
        changed.append(replace(example, statuses=statuses))
        for other in changed:
            assert endpoint in check(other)


class BatchMinded(tf.Module):
    """Endpoints with wrong rows in batches of one size: a server would mix strangers."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.functions = {
            name: tf.function(partial(self.answer, size=size)).get_concrete_function(
                tf.TensorSpec([None], tf.string, name=ENDPOINTS[SIGNATURES[name]])
            )
            for name, size in sizes.items()
        }

    def answer(self, strings: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
        lengths = tf.cast(tf.strings.length(strings), tf.float32)
        wrong = tf.cast(tf.size(strings) == size, tf.float32)
        embeddings = tf.stack([lengths, lengths + wrong], axis=1)
        return {"embedding": embeddings, "status": tf.zeros_like(lengths, tf.int32)}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_rows_that_depend_on_their_batch_are_found(tmp_path):
    sizes = {"encode_image": 64, "encode_text": 7, "serving_default": 1}
    module = BatchMinded(sizes)
    tf.saved_model.save(module, str(tmp_path), signatures=module.functions)
    inputs = tuple(b"x" * number for number in range(9))
    lengths = np.arange(9, dtype=np.float32)
    example = Examples(inputs, np.stack([lengths] * 2, axis=1), np.zeros(9, np.int32))
    examples = dict.fromkeys(ENDPOINTS, example)
    write_warmup(tmp_path, "sizes", examples)
    found = {check.name: check for check in check_answers(tmp_path, examples, answer_calls)}
    for name, size in sizes.items():
        assert f"batch of {size}," in found[name].finding
    assert [name for name, check in found.items() if check.passed] == ["load", "warm-up"]


def test_failing_damaged_empty_and_missing_warm_up_are_found(version, run, monkeypatch):
    examples = load_examples(version)
    monkeypatch.setattr(golden, "ENDPOINTS", {"encode_image": "other", "encode_text": "text"})
    write_warmup(version, "tiny", examples)
    monkeypatch.undo()
    assert list(failures(version, run)) == ["warm-up"]
    path = version / WARMUP_FILE
    for content in (path.read_bytes()[:-5], b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert list(failures(version, run)) == ["warm-up"]


def test_missing_endpoint_is_found(version):
    change_graph(version, lambda meta_graph: meta_graph.signature_def.pop("encode_text"))
    assert list(failures(version)) == ["encode_text", "warm-up"]


@pytest.mark.process
def test_operation_that_no_server_has_is_found_and_cannot_be_loaded(version):
    change_graph(
        version, lambda meta_graph: meta_graph.graph_def.node.add(name="new", op="Clairvoyance")
    )
    write_checksums(version)
    found = {check.name: check.finding for check in verify_version(version) if not check.passed}
    assert list(found) == ["operations", "load"]
    assert all("Clairvoyance" in finding for finding in found.values())


def test_file_that_is_damaged_or_no_graph_is_found(version):
    for content in (b"\xff" * 100, b""):
        (version / MODEL_FILE).write_bytes(content)
        files, graph = [check for check in verify_version(version) if not check.passed]
        assert (files.name, graph.name) == ("files", "graph")
        assert MODEL_FILE in files.finding


def test_process_that_dies_or_never_ends_is_a_failure(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(session_process, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(ModelError, match="seconds"):
        run_calls(exported, [])
    monkeypatch.undo()
    # Without its installed packages, Python does not even find NumPy.
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    with pytest.raises(ModelError, match="status 1"):
        run_calls(exported, [])


@pytest.mark.full
def test_export_that_only_python_can_run_is_found(version, model, tokenizer):
    # `tf.saved_model.save` of a Keras model loads and answers in Python, and loads in a Session,
    # but finds no variables there: the trap for which exports are verified in a Session.
    serving = ServingModule(model, tokenizer)
    module = tf.Module()
    module.encoders = [serving._image_encoder, serving._text_encoder]
    module.table = tokenizer.table
    functions = {
        name: tf.function(getattr(serving, name), input_signature(name)).get_concrete_function()
        for name in ENDPOINTS
    }
    module.functions = list(functions.values())
    tf.saved_model.save(module, str(version), signatures=functions)
    loaded = tf.saved_model.load(str(version))
    assert loaded.signatures["encode_text"](text=tf.constant(["a dog"]))["status"] == [0]

    assert "Could not find variable" in failures(version)["encode_text"]
