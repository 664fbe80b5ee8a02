"""Trains where TensorFlow is not: `python -m pipelines.offload`.

pack      here: prepared data and a configuration become a bundle
fit       there: both stages in pure Keras, under JAX (PyTorch is untried)
unpack    here: the bundle becomes a run
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._configuration import add_configuration, configuration
from pipelines._verb import progress, run_verb, say_files, verb_parser
from tf_dpce.errors import UserError

_VERB = "offload"


def build_parser(argv: Sequence[str] | None = None) -> ArgumentParser:
    """Returns the verb's parser; defaults of `pack` are those of the preset named in `argv`."""
    parser = verb_parser(_VERB, "Trains on a machine without TensorFlow, and brings the run back.")
    actions = parser.add_subcommands(dest="action")

    pack = verb_parser(f"{_VERB} pack", "Writes a bundle: pictures, captions, starting weights.")
    pack.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    pack.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    add_configuration(pack, argv)
    actions.add_subcommand("pack", pack, help="prepared data becomes a bundle (TensorFlow)")

    fit = verb_parser(f"{_VERB} fit", "Trains a bundle under JAX (PyTorch is untried).")
    fit.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    actions.add_subcommand("fit", fit, help="both stages, by KERAS_BACKEND (default: jax)")

    unpack = verb_parser(f"{_VERB} unpack", "Writes the run of a bundle that was fitted.")
    unpack.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    unpack.add_argument("--run", type=Path, required=True, help="folder of the run")
    actions.add_subcommand("unpack", unpack, help="a fitted bundle becomes a run (TensorFlow)")
    return parser


def run(arguments: Namespace) -> None:
    """Does the action, and names what it leaves behind."""
    actions = {"pack": _pack, "fit": _fit, "unpack": _unpack}
    actions[arguments.action](arguments[arguments.action])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(lambda: build_parser(argv), run, argv)


def _pack(arguments: Namespace) -> None:
    config = configuration(arguments)
    _require_tensorflow()
    from tf_dpce.offload.pack import pack

    bar = lambda: progress("pictures")  # noqa: E731
    pack(config, arguments.data, arguments.out, say=_say, progress=bar)
    say_files(sorted(arguments.out.iterdir()))


def _fit(arguments: Namespace) -> None:
    _choose_backend()
    from tf_dpce.offload.bundle import open_bundle
    from tf_dpce.offload.fit import fit

    bundle = open_bundle(arguments.bundle)
    fit(bundle, say=_say)
    say_files(map(bundle.weights_path, bundle.stages))
    say_files(bundle.folder / name for name in ("fitted.json", "history.csv"))


def _unpack(arguments: Namespace) -> None:
    _require_tensorflow()
    from tf_dpce.offload.bundle import open_bundle
    from tf_dpce.offload.unpack import unpack

    unpack(open_bundle(arguments.bundle), arguments.run)
    names = ("config.json", "vocabulary.txt", "history.csv", "checkpoints")
    say_files(arguments.run / name for name in names)


def _choose_backend() -> None:
    """Lets Keras compute by JAX where nothing else is asked for, and tells what is missing."""
    backend = os.environ.setdefault("KERAS_BACKEND", "jax")
    if backend in ("jax", "torch") and importlib.util.find_spec(backend) is None:
        raise UserError(
            f"{backend} is not installed: pip install -r requirements-jax.txt, or name another "
            "backend by KERAS_BACKEND"
        )


def _require_tensorflow() -> None:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND is {backend}, and this action computes by TensorFlow: unset it here, "
            "it is for `offload fit`"
        )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
