"""Trains a model in two stages: `python -m pipelines.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._configuration import add_configuration, configuration
from pipelines._verb import STOPPED, run_verb, say_files, terminations, verb_parser

_DESCRIPTION = (
    "Trains a model in two stages. Every configuration key is an option. SIGTERM makes it finish "
    f"the step, save a checkpoint and exit with code {STOPPED}; --resume continues. If TF_CONFIG "
    "lists several workers, this process is one of them: see docs/distributed.md."
)


def build_parser(argv: Sequence[str] | None = None) -> ArgumentParser:
    """Returns the verb's parser, whose defaults are those of the preset named in `argv`."""
    parser = verb_parser("train", _DESCRIPTION)
    parser.add_argument("--stage", type=int, choices=[1, 2], help="train only this stage")
    parser.add_argument(
        "--init-from", type=Path, help="start from the best weights of this run on the same --data"
    )
    parser.add_argument(
        "--from-weights",
        type=Path,
        metavar="FILE",
        help="do not train: make a run of this .weights.h5 file (see examples/jax_fit.py)",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--run", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--resume", action="store_true", help="resume from the newest checkpoint, if there is one"
    )
    add_configuration(parser, argv)
    return parser


def run(arguments: Namespace) -> None:
    """Trains, and names what it leaves behind."""
    config = configuration(arguments)
    if arguments.from_weights:
        from tf_dpce.training.from_weights import run_from_weights

        run_from_weights(config, arguments.data, arguments.run, arguments.from_weights)
        say_files([arguments.run])
        return

    with terminations():
        from tf_dpce.training.train import train

        train(
            config,
            arguments.data,
            arguments.run,
            stages=(arguments.stage,) if arguments.stage else (1, 2),
            init_from=arguments.init_from,
            resume=arguments.resume,
        )
    names = ("config.json", "history.csv", "checkpoints", "tensorboard")
    paths = [arguments.run / name for name in names]
    # Of several workers the chief alone leaves them.
    say_files(path for path in paths if path.exists())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(lambda: build_parser(argv), run, argv)


if __name__ == "__main__":
    sys.exit(main())
