"""A run with a teacher: its loss counts, and it is resumed to the same bits with the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises
from tests.unit.search.plain import MODEL, PlainEncoder
from tests.unit.training.kills import differences, history, reached
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import STEPS
from tf_dpce.errors import Stopped
from tf_dpce.files import read_json
from tf_dpce.logging import run_context
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images, find_texts
from tf_dpce.training import train

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def embedded(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "embedded"
    for inputs in (find_images([str(scenes)]), find_texts([str(scenes)])):
        embed(PlainEncoder(), inputs, folder, MODEL)
    return folder


def test_both_stages_learn_from_it_and_a_stopped_run_goes_on_to_the_same_bits(
    scenes: Path, embedded: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(embedded.parent)
    whole, run = tmp_path / "whole", tmp_path / "run"
    taught = {"teacher": "embedded", "stage2__loss__distillation": 0.5}
    taught |= {"stage1__epochs": 1, "stage2__epochs": 1}
    train.train(config(**taught), scenes, whole)
    for row, weight in zip(history(whole), (1, 0.5), strict=True):
        weights = {"image_logits": 1, "text_logits": 1, "pair": 0, "distillation": weight}
        if row["stage"] == "2":
            weights |= {"text_logits": 0.1, "pair": 2}
        parts = [w * float(row[f"{name}_loss"] or 0) for name, w in weights.items()]
        assert 0.1 < parts[-1] < 100
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-5)
    often = config(checkpoint_minutes=0.0, **taught)
    for stage in (1, 2):
        # In the middle of its only epoch.
        stop = reached(run, stage, STEPS // 2)
        with pytest.raises(Stopped), run_context(stop_requested=stop):
            train.train(often, scenes, run, resume=True)
    # Another name of the same embeddings.
    (tmp_path / "moved").symlink_to(embedded)
    moved = config(**taught | {"teacher": str(tmp_path / "moved")})
    train.train(moved, scenes, run, resume=True)
    assert differences(whole, run) == []

    saved = read_json(run / "config.json")
    assert saved["config"]["teacher"] == str(embedded) and saved["data"]["teacher_sha256"]
    # Of whatever kind that is, its digest is another.
    with raises("teacher.other", path=run / "config.json"):
        train.train(config(**taught | {"teacher": "embedded/texts.json"}), scenes, run, resume=True)


def test_another_teacher_is_refused_when_a_run_is_resumed_and_a_wrong_one_leaves_nothing(
    scenes: Path, finished: Path, embedded: Path, tmp_path: Path
):
    with raises("teacher.other", path=finished / "config.json"):
        train.train(config(teacher=str(embedded)), scenes, finished, resume=True)
    with raises("teacher.file"):
        train.train(config(teacher="none.npz"), scenes, tmp_path / "run")
    assert not (tmp_path / "run").exists()
