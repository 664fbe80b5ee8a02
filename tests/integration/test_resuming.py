"""What resuming costs: as much as starting, however far the epoch had come."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.scenes import prepare_scenes
from tests.unit.training.kills import kill_when, reached, start

IMAGES, BATCH, KILLED_AT = 960, 4, 160
# Seconds of computing from the start of the process to its first step, over those of a fresh run.
COST = 1.3
# Records of the first step, and those that are read ahead while it is traced.
READ_AHEAD = 60 * BATCH

# Tells, at the end of its first step, what came before it: seconds of computing, and records read.
_TOLD = """
import json, sys, time
import tensorflow as tf
from tf_dpce.data.input_pipeline import RecordReader
from tf_dpce.training.callbacks import Checkpoints
from pipelines.train import main
read, told = [], []
def count(self, index):
    tf.numpy_function(lambda place: read.append(place), [index], [])
    return keep_read(self, index)
def tell(self, batch, logs=None):
    keep_end(self, batch, logs)
    if not told:
        first = {"step": self.progress.step, "cpu": time.process_time(), "read": len(read)}
        told.append(print(json.dumps(first), flush=True))
keep_read, RecordReader.__call__ = RecordReader.__call__, count
keep_end, Checkpoints.on_train_batch_end = Checkpoints.on_train_batch_end, tell
sys.exit(main(sys.argv[1:]))
"""
# End to end from the first step on; a checkpoint every second or so.
OPTIONS = {
    "stage1__epochs": 0,
    "stage2__batch_size": BATCH,
    "stage2__epochs": 1,
    "checkpoint_minutes": 0.02,
}


def first_step(data: Path, run: Path, *more: str) -> tuple[dict, subprocess.Popen[str]]:
    """Starts a run and returns what it tells of its first step, with its seconds by the clock."""
    began = time.monotonic()
    process = start(data, run, *more, program=("-c", _TOLD), **OPTIONS)
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line) | {"clock": time.monotonic() - began}, process
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_a_killed_run_is_back_as_soon_as_a_fresh_one_starts(tmp_path: Path):
    data, run = tmp_path / "data", tmp_path / "run"
    prepare_scenes(data, train=IMAGES)
    fresh, process = first_step(data, run)
    kill_when(process, reached(run, 2, KILLED_AT))
    resumed, process = first_step(data, run, "--resume")
    process.kill()
    process.communicate()
    print(f"\nfresh {fresh}\nresumed {resumed}\nratio {resumed['cpu'] / fresh['cpu']:.2f}")
    assert fresh["step"] == 1 and resumed["step"] > KILLED_AT
    # The steps before the checkpoint are not read, let alone computed, again.
    assert BATCH <= resumed["read"] <= READ_AHEAD < KILLED_AT * BATCH
    assert resumed["cpu"] < COST * fresh["cpu"]
