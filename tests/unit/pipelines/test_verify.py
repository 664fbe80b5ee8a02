"""`verify`: the checks of an exported version, and a status that says whether it is sound."""

from __future__ import annotations

import shutil

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from pipelines import verify
from tests.errors import printed_code
from tf_dpce.export.checksums import write_checksums


def checks(printed: str) -> dict[str, str]:
    """The state of each check by its name."""
    lines = [line.split() for line in printed.splitlines()]
    return {words[1]: words[0] for words in lines if words[0] in ("ok", "FAILED")}


@pytest.mark.process
def test_sound_version_is_reported(tiny_export, capsys):
    # By the folder of the model: its newest version.
    assert verify.main([str(tiny_export)]) == 0
    found = checks(capsys.readouterr().out)
    assert set(found.values()) == {"ok"}
    assert list(found) == [
        *("files", "operations", "placement", "load"),
        *("encode_image", "encode_text", "serving_default", "warm-up"),
    ]


@pytest.mark.process
def test_version_that_the_server_would_refuse_is_refused(tiny_export, tmp_path, capsys):
    version = shutil.copytree(tiny_export / "1", tmp_path / "1")
    path = version / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    # TensorFlow Text 2.20.0 has it, 2.12.1 has not.
    node = saved.meta_graphs[0].graph_def.node.add(name="new", op="TFText>RoundRobinTrim")
    node.attr["T"].type, node.attr["Tsplits"].type = 3, 9
    path.write_bytes(saved.SerializeToString())
    write_checksums(version)

    assert verify.main([str(version), "--serving-version", "2.19.1"]) == 1

    printed = capsys.readouterr()
    assert printed_code(printed.err) == "verify.failed"
    assert checks(printed.out)["files"] == "ok"
    assert checks(printed.out)["operations"] == "FAILED"


def test_mistakes_have_their_codes(tiny_export, tmp_path, capsys):
    assert verify.main([str(tmp_path)]) == 1
    assert printed_code(capsys.readouterr().err) == "export.missing"
    assert verify.main([str(tiny_export), "--serving-version", "2.99"]) == 1
    assert printed_code(capsys.readouterr().err) == "verify.serving_version"
