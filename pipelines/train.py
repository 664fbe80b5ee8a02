"""Trains a model in two stages: `python -m pipelines.train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from pipelines._verb import options_verb, say_files, terminations
from tf_dpce.config import Config


def run(
    data: Path,
    run: Path,
    config: Config,
    stage: Literal[1, 2] | None = None,
    init_from: Path | None = None,
    from_weights: Path | None = None,
    resume: bool = False,
) -> None:
    """Trains a model in two stages. Every configuration key is an option.

    SIGTERM makes it finish the step, save a checkpoint and exit with code 75; --resume continues.
    If TF_CONFIG lists several workers, this process is one of them: see docs/distributed.md.

    Args:
        data: folder of prepared data.
        run: run folder to write.
        config: what the preset and the keys say.
        stage: train only this stage.
        init_from: start from the best weights of this run on the same --data.
        from_weights: do not train: make a run of this .weights.h5 file (see examples/jax_fit.py).
        resume: resume from the newest checkpoint, if there is one.
    """
    if from_weights:
        from tf_dpce.training.from_weights import run_from_weights

        run_from_weights(config, data, run, from_weights)
        say_files([run])
        return

    stages = (stage,) if stage else (1, 2)
    if not os.environ.get("TF_CONFIG"):
        # Of several workers each reports to the others, which would else wait for it.
        from tf_dpce.training.checks import check_training

        check_training(config, data, run, stages, init_from, resume)
    with terminations():
        from tf_dpce.training.train import train

        train(config, data, run, stages, init_from, resume)
    paths = [run / name for name in ("config.json", "history.csv", "checkpoints", "tensorboard")]
    # Of several workers the chief alone leaves them.
    say_files(path for path in paths if path.exists())


build_parser, main = options_verb("train", run)


if __name__ == "__main__":
    sys.exit(main())
