"""`evaluate`: a run and prepared data in, a table and a metrics file out."""

from __future__ import annotations

import json

import pytest

from pipelines import evaluate
from tests.export.tiny import tiny_data
from tf_dpce.files import sha256_file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "drawn"
    return folder, tiny_data(folder)


def test_evaluate_leaves_the_metrics_in_the_run(run, data, capsys):
    folder, manifest = data
    arguments = ["--run", str(run), "--data", str(folder), "--split", "test", "--protocol", "all"]
    assert evaluate.main([*arguments, "--checkpoint", "best"]) == 0

    path = run / "metrics-drawn-test-all.json"
    shown = capsys.readouterr().out
    assert "R@1" in shown
    assert shown.splitlines()[-1] == str(path)
    metrics = json.loads(path.read_text())
    for direction in ("image_to_text", "text_to_image"):
        assert list(metrics[direction]) == ["r1", "r5", "r10", "medr", "meanr"]
        # 3 pictures: any of them is among the first 5.
        assert metrics["text_to_image"]["r5"] == 100
    assert metrics["split_digest"] == manifest.split_digest
    assert (metrics["pictures"], metrics["captions"]) == (3, 6)
    assert (metrics["split"], metrics["checkpoint"]) == ("test", "best")
    weights = run / "checkpoints" / "stage1-best.npz"
    assert metrics["checkpoint_sha256"] == sha256_file(weights)
    assert metrics["command"].endswith("--protocol all --checkpoint best")


def test_a_measurement_of_both_sides_stands_beside_the_other(run, data, capsys):
    folder, _ = data
    assert evaluate.main(["--run", str(run), "--data", str(folder), "--flip"]) == 0
    path = run / "metrics-drawn-test-all-flip.json"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert json.loads(path.read_text())["command"].endswith("--checkpoint best --flip")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"--split": "dev"}, "has no split dev"),
        ({"--protocol": "5k"}, "unknown protocol 5k"),
        ({"--run": "nowhere"}, "nowhere is not a run"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--checkpoint": "last"}, "stage1-last"),
    ],
)
def test_mistakes_are_one_line(run, data, capsys, change, complaint):
    options = {"--run": str(run), "--data": str(data[0]), **change}
    assert evaluate.main([part for option in options.items() for part in option]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line
    assert not list(run.glob("metrics-*"))
