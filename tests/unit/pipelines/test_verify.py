"""`verify`: the report of an exported version, and a status that tells whether it is sound."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipelines import verify
from tests.unit.export.tiny import WORDS, tiny_model
from tf_dpce.export import ENDPOINTS, examples
from tf_dpce.export.publish import export_model
from tf_dpce.export.seal import write_seal
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    export_model(tiny_model(), CaptionTokenizer(WORDS, 6, lowercase=True), folder)
    return folder


def test_sound_version_is_reported(model_folder, project_root):
    command = [sys.executable, "-m", "pipelines.verify", str(model_folder / "1")]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        *(["ok", name] for name in ("files", "operations", "placement", "batching", "load")),
        *(["ok", name] for name in ("encode_image", "encode_text", "serving_default", "warm-up")),
    ]
    assert lines[-1] == f"{model_folder / '1'} answers as the model it was exported from"


def test_version_that_differs_is_refused(model_folder, tmp_path, capsys):
    version = shutil.copytree(model_folder / "1", tmp_path / "tiny" / "1")
    path = version / examples.FILE
    recorded = examples.load_examples(path, ENDPOINTS)
    recorded["encode_text"].embeddings[0] += np.float32(0.1)
    examples.save_examples(path, recorded)
    write_seal(version)

    # By the model's folder: its newest version.
    assert verify.main([str(tmp_path / "tiny"), "--bare"]) == 1

    shown = capsys.readouterr()
    assert "FAILED  encode_text" in shown.out
    assert "ok      encode_image" in shown.out
    (line,) = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert f"{version} is not fit to serve: encode_text: " in line


def test_path_without_an_export_is_one_line(tmp_path, capsys):
    assert verify.main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"error: {tmp_path} holds no exported model: make one with `export`"


def test_server_is_chosen_by_its_version(model_folder, tmp_path, capsys):
    version = shutil.copytree(model_folder / "1", tmp_path / "1")
    path = version / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    # TensorFlow Text 2.20.0 has it, 2.12.1 has not.
    node = saved.meta_graphs[0].graph_def.node.add(name="new", op="TFText>RoundRobinTrim")
    node.attr["T"].type, node.attr["Tsplits"].type = 3, 9
    path.write_bytes(saved.SerializeToString())

    assert verify.main([str(version), "--bare", "--serving-version", "2.19.1"]) == 1

    assert (
        "operations       TFText>RoundRobinTrim is not in TF Serving 2.19: "
        "2.20 is the first that has it\n"
    ) in capsys.readouterr().out

    assert verify.main([str(version), "--serving-version", "2.99"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: TF Serving 2.99 is not known: give a version from 2.13 to 2.20"
