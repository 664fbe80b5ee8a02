"""Trains a model in two stages: `python -m pipelines.train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt

from pipelines._verb import options_verb, say_files, terminations
from tf_dpce.config import CONFIG_FILE, Config
from tf_dpce.storage import local_folder


def run(
    data: str,
    run: Path,
    config: Config,
    stage: Literal[1, 2] | None = None,
    init_from: Path | None = None,
    from_weights: Path | None = None,
    resume: bool = False,
    profile: NonNegativeInt = 0,
) -> None:
    """Trains a model in two stages. Every configuration key is an option.

    SIGTERM makes it finish the step, save a checkpoint and exit with code 75; --resume continues.
    If TF_CONFIG lists several workers, this process is one of them: see docs/distributed.md.

    Args:
        data: folder of prepared data; one in an object store is copied into the user's cache once.
        run: run folder to write.
        config: what the preset and the keys say.
        stage: train only this stage.
        init_from: start from the best weights of this run on the same --data.
        from_weights: do not train: make a run of this .weights.h5 file (see examples/jax_fit.py).
        resume: resume from the newest checkpoint, if there is one.
        profile: profile so many steps of each stage, for TensorBoard (see docs/monitoring.md).
    """
    folder = local_folder(data)
    if from_weights:
        from tf_dpce.training.from_weights import run_from_weights

        run_from_weights(config, folder, run, from_weights)
        say_files([run])
        return

    stages = (stage,) if stage else (1, 2)
    if not os.environ.get("TF_CONFIG"):
        # Of several workers each reports to the others, which would else wait for it.
        from tf_dpce.training.checks import check_training

        check_training(config, folder, run, stages, init_from, resume)
    with terminations():
        from tf_dpce.training.train import train

        train(config, folder, run, stages, init_from, resume, profile)
    paths = [run / name for name in (CONFIG_FILE, "history.csv", "checkpoints", "tensorboard")]
    # Of several workers the chief alone leaves them.
    say_files(path for path in paths if path.exists())


build_parser, main = options_verb("train", run)


if __name__ == "__main__":
    sys.exit(main())
