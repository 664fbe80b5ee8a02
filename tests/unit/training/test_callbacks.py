"""What an epoch leaves in the log, on the screen and in `history.csv`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.errors import raises
from tf_dpce.logging import run_context
from tf_dpce.training import callbacks
from tf_dpce.training.callbacks import EpochReport, read_history

FIRST = {"loss": 2.5}
SECOND = {"loss": 2.314, "val_rsum": 310.0, "val_i2t_r1": 41.2, "val_t2i_r1": 35.04}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpochReport:
    """A report of a stage of 40 epochs, whose first takes 30 seconds and whose second 12.25."""
    clock = [100.0, 130.0, 130.5, 142.75]
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: clock.pop(0)))
    report = EpochReport(tmp_path, stage=1, epochs=40)
    report.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1)))
    report.set_params({"steps": 2})
    return report


def run_epochs(report: EpochReport) -> None:
    for epoch, logs in enumerate((FIRST, SECOND)):
        report.on_epoch_begin(epoch)
        for batch in range(2):
            report.on_train_batch_end(batch, logs)
        report.on_epoch_end(epoch, logs)


def test_an_epoch_is_a_line_in_the_log_and_in_the_history(
    report: EpochReport, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", "tf_dpce"):
        run_epochs(report)
    rows = read_history(report.path, before=(2, 0))
    assert [row["epoch_seconds"] for row in rows] == ["30.0", "12.2"]
    assert read_history(report.path, before=(1, 2)) == rows[:1]
    assert caplog.messages == [
        "stage 1, epoch 1 of 40: loss 2.5, 30 s, about 20 min left",
        "stage 1, epoch 2 of 40: loss 2.31, R@1 41.2/35.0 (image to text/text to image), 12 s, "
        "about 8 min left",
    ]
    fields = caplog.records[1].fields
    assert json.loads(json.dumps(fields))["event"] == "epoch"
    expected = {"stage": 1, "epoch": 2, "epochs": 40, "epoch_seconds": 12.2, "val_t2i_r1": 35.04}
    assert expected.items() <= fields.items()


def test_an_epoch_is_a_bar_with_the_loss_and_the_last_recalls(report: EpochReport):
    shown = []

    @contextmanager
    def display(description: str, transient: bool) -> Iterator[SimpleNamespace]:
        shown.append((description, transient))
        yield SimpleNamespace(update=lambda *a, **k: shown.append((*a, k["total"], k["note"])))

    with run_context(display=display):
        run_epochs(report)
        report.on_train_batch_end(0, FIRST)
    assert shown[:2] == [("stage 1, epoch 1 of 40", True), (1, 2, "loss 2.5")]
    assert shown[-1] == (1, 2, "loss 2.5, R@1 41.2/35.0")


def test_a_history_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "history.csv"
    for contents in (b"hello\n1,2\n", b"stage,epoch\none,2\n", b"stage,epoch\n\xff\xfe\0"):
        path.write_bytes(contents)
        with raises("run.history", path=path):
            read_history(path, before=(2, 0))
