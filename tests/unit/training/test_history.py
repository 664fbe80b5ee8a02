"""A line for each epoch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.errors import raises
from tf_dpce.training import history as module
from tf_dpce.training.history import History, read_history


def test_the_seconds_of_a_line_are_those_of_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = SimpleNamespace(monotonic=lambda: clock.pop(0))
    monkeypatch.setattr(module, "time", now)
    history = History(tmp_path, stage=1)
    history.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1)))
    clock = [100.0, 130.0, 130.5, 142.75]
    history.on_train_begin()
    for epoch in range(2):
        history.on_epoch_begin(epoch)
        history.on_epoch_end(epoch, {"loss": 1.0})
    rows = read_history(tmp_path / "history.csv", before=(2, 0))
    assert [row["epoch_seconds"] for row in rows] == ["30.0", "12.2"]


@pytest.mark.parametrize("contents", [b"hello\n1,2\n", b"stage,epoch\none,2\n", b"\xff\xfe\0"])
def test_a_file_of_something_else_is_told(tmp_path: Path, contents: bytes):
    path = tmp_path / "history.csv"
    path.write_bytes(b"stage,epoch\n" + contents if contents[0] > 127 else contents)
    with raises("run.history", path=path):
        read_history(path, before=(2, 0))
