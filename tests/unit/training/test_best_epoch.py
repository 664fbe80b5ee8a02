"""Which epoch of a stage counts as its best, by few validation images and by many."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.scenes import prepare_scenes
from tests.unit.training.kills import arrays, history, newest
from tests.unit.training.tiny import run_tiny
from tf_dpce.training.best_epoch import NO_SCORE, log_few_images
from tf_dpce.training.callbacks import Checkpoints
from tf_dpce.training.checkpoint import Progress, best_path, read_progress

# rsum and mean rank of five epochs, of which the fourth is not validated.
VALIDATIONS = [(500.0, 3.0), (600.0, 2.5), (600.0, 2.0), None, (590.0, 2.0)]


def chosen(run: Path, images: int, validations: list[tuple[float, float] | None]) -> Progress:
    """Where the best checkpoint stands after epochs with these validations."""
    workers = SimpleNamespace(is_chief=True)
    context = SimpleNamespace(run=run, workers=workers, model=SimpleNamespace(variables=[]))
    start = Progress(1, epoch=0, step=0, best_score=NO_SCORE)
    found = Checkpoints(context, images, list, start)
    found.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD()))
    for epoch, values in enumerate(validations):
        logs = dict(zip(("val_rsum", "val_meanr"), values, strict=True)) if values else {}
        found.on_epoch_end(epoch, logs)
    return read_progress(best_path(run, 1))


@pytest.mark.parametrize(
    ("images", "epoch", "score"),
    # By rsum: of two with 600 the later. By mean rank: of two with 2 the later. By nothing.
    [(50, 3, 600.0), (49, 5, -2.0), (20, 5, -2.0), (19, 5, 0.0), (1, 5, 0.0)],
)
def test_epochs_are_compared_by_what_can_distinguish_them(
    tmp_path: Path, images: int, epoch: int, score: float
):
    found = chosen(tmp_path, images, VALIDATIONS)
    assert (found.epoch, found.best_score) == (epoch, score)


def test_few_images_never_choose_a_lucky_epoch(tmp_path: Path):
    lucky = [(600.0, 1.0), (540.0, 1.2), (580.0, 1.1)]
    assert chosen(tmp_path / "many", 50, lucky).epoch == 1
    assert chosen(tmp_path / "some", 20, lucky).epoch == 1
    assert chosen(tmp_path / "few", 19, lucky).epoch == 3


def test_few_images_are_logged_with_their_resolution(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "tf_dpce"):
        for images in (4, 25, 50):
            log_few_images(images)
    few, some = caplog.records
    assert few.levelname == "WARNING" and some.levelname == "INFO"
    # 100 / 4 and 100 / 25.
    assert " 25 points" in few.getMessage() and " 4 points" in some.getMessage()
    assert few.fields["diagnosis"] == "few_validation_images"


@pytest.mark.sentinel
def test_a_run_with_two_validation_images_ends_with_what_it_learnt(tmp_path: Path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    prepare_scenes(data, train=16, val=2, test=2)
    # Without averages of the weights, so that an epoch's own weights are those of its state.
    options = {"stage1__epochs": 10, "stage1__ema_momentum": 0, "stage2__epochs": 0}
    assert run_tiny(data, run, **options) == 0
    losses, rsums = ([float(row[k]) for row in history(run)] for k in ("loss", "val_rsum"))
    # Two images allow few values of rsum: the highest comes early, and the loss still falls.
    early = int(np.argmax(rsums))
    assert early < 8 and losses[-1] < losses[early]
    best, last = arrays(best_path(run, 1)), arrays(newest(run, 1))
    assert read_progress(best_path(run, 1)).epoch == 10
    assert all(np.array_equal(best[name], last[name]) for name in best if name != "progress")
    # Whatever comes next starts from it.
    assert "epoch 10 is the best" in capsys.readouterr().err
