"""What TensorBoard's files cost a training on drawn scenes: whole trainings with and without."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.timing import Row, interleave, row
from pipelines._verb import TENSORFLOW
from tf_dpce.config import Config

_OPTIONS = (
    *("--preset", "scenes", "--text.opposites", "[]", "--stage1.validate_every", "1"),
    *("--stage1.loss.image_instance", "1", "--stage1.loss.text_instance", "1"),
)
_PREPARE = (sys.executable, "-m", "pipelines.prepare", "--source", "scenes")
_WITH = "from pipelines.train import main"
# No callback and not its imports, no norms of gradients, and no accuracy of the classifiers.
_WITHOUT = """
import sys
from types import SimpleNamespace
import keras
class Nothing(keras.callbacks.Callback):
    see = close = lambda *embeddings: None
sys.modules["tf_dpce.monitoring.monitor"] = SimpleNamespace(
    MonitoredStage=lambda **facts: None, TrainingMonitor=lambda *arguments: Nothing()
)
from pipelines.train import main
from tf_dpce.monitoring.norms import GradientNorms
from tf_dpce.training.dual_path_trainer import DualPathTrainer
GradientNorms.measure = lambda *arguments: None
del DualPathTrainer.compute_metrics
"""
_RUN = "\nimport sys\nsys.exit(main(sys.argv[1:]))"


def measure(
    config: Config, *, images: int = 2_000, epochs: int = 5, batch_size: int = 64, rounds: int = 3
) -> list[Row]:
    """Times trainings, each a process of its own, that are validated after every epoch.

    Args:
        config: not used, because the preset is that of drawn scenes.
        images: number of training images; a quarter as many validate.
        epochs: number of epochs.
        batch_size: B.
        rounds: number of trainings of each kind.
    """
    with TemporaryDirectory() as folder:
        data, processor = Path(folder, "data"), {"with": [], "without": []}
        counts = {"train": images, "val": images // 4, "test": 1}
        sizes = [f"--{split}-images={count}" for split, count in counts.items()]
        subprocess.run([*_PREPARE, "--out", data, *sizes], check=True)
        options = [*_OPTIONS, f"--stage1.epochs={epochs}", f"--stage1.batch_size={batch_size}"]
        calls = {
            name: partial(_train, program, data, options, processor[name])
            for name, program in (("with", _WITH), ("without", _WITHOUT))
        }
        wall = interleave(calls, rounds, warm_up=0)
    return [
        made
        for unit, seconds in (("CPU s", processor), ("s", wall))
        for made in (
            row("a training without TensorBoard's files", unit, seconds["without"]),
            row("with them", unit, seconds["with"], "without", np.array(seconds["without"])),
        )
    ]


def _train(program: str, data: Path, options: list[str], processor: list[float]) -> None:
    """Trains in a process, and adds its seconds of processor time."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program + _RUN, "--data", data, "--run", f"{folder}/run"]
        began = os.times()
        subprocess.run([*command, *options], env=os.environ | TENSORFLOW, check=True)
        ended = os.times()
    processor.append(
        ended.children_user + ended.children_system - began.children_user - began.children_system
    )
