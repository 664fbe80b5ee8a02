"""Trains a model in two stages: `python -m pipelines.train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import STOPPED, progress, run_verb, say_files, terminations, verb_parser
from tf_dpce.config import Config, from_dict, preset_names, preset_values
from tf_dpce.errors import UserError

_DESCRIPTION = (
    "Trains a model in two stages. Any configuration key can be set. On SIGTERM the step in "
    f"flight ends, a checkpoint is written and the exit status is {STOPPED}; --resume goes on. "
    "Where TF_CONFIG names several machines, this is one of them: docs/machines.md."
)
_OWN_OPTIONS = ("preset", "stage", "init_from", "data", "run", "resume", "verbose")


def build_parser(argv: Sequence[str] | None = None) -> ArgumentParser:
    """Returns the verb's parser, whose defaults are those of the preset named in `argv`."""
    parser = verb_parser("train", _DESCRIPTION)
    names = preset_names()
    parser.add_argument(
        "--preset", choices=names, metavar="NAME", help=f"values to start from: {', '.join(names)}"
    )
    parser.add_argument("--stage", type=int, choices=[1, 2], help="one stage alone")
    parser.add_argument(
        "--init-from", type=Path, help="run of the same --data whose best weights to start from"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--verbose", type=int, default=2, help="Keras's: 0, 1 a bar, 2 lines")
    parser.add_class_arguments(Config)
    parser.set_defaults(_flat(_preset_of(argv)))
    return parser


def run(arguments: Namespace) -> None:
    """Trains, and names what it leaves behind."""
    values = {k: v for k, v in arguments.as_dict().items() if k not in _OWN_OPTIONS}
    # A run that goes on has weights of its own; `train` says where it has none yet.
    if arguments.stage == 2 and arguments.init_from is None and not arguments.resume:
        raise UserError("--stage 2 needs --init-from RUN, the run of stage 1")

    config = from_dict(values)

    with terminations() as stop:
        from tf_dpce.training.train import train

        train(
            config,
            arguments.data,
            arguments.run,
            stages=(arguments.stage,) if arguments.stage else (1, 2),
            init_from=arguments.init_from,
            resume=arguments.resume,
            say=lambda line: print(line, flush=True),
            progress=lambda: progress("pictures through the trunk"),
            verbose=arguments.verbose,
            stop=stop,
        )
    names = ("config.json", "history.csv", "checkpoints", "tensorboard")
    paths = [arguments.run / name for name in names]
    # Of several workers the chief alone leaves them.
    say_files(path for path in paths if path.exists())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(lambda: build_parser(argv), run, argv)


def _preset_of(argv: Sequence[str] | None) -> dict:
    """Returns the values of the preset in a command line: they are defaults of the options."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset")
    name = finder.parse_known_args(sys.argv[1:] if argv is None else argv)[0].preset
    return preset_values(name) if name in preset_names() else {}


def _flat(values: dict, prefix: str = "") -> dict:
    """Returns nested values as one dict with dotted keys."""
    flat = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        flat.update(_flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return flat


if __name__ == "__main__":
    sys.exit(main())
