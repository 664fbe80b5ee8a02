"""Checks an exported version as TF Serving will run it: `python -m pipelines.verify PATH`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, verb_parser


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("verify", "Checks an exported version as TF Serving will run it.")
    parser.add_argument("path", type=Path, help="saved_models/NAME/INTEGER, or NAME for the newest")
    parser.add_argument(
        "--serving-version",
        help="TF Serving that must have every operation, such as 2.19 (default: the newest known)",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Prints the checks, and fails if one of them fails."""
    from tf_dpce.errors import UserError
    from tf_dpce.export.operations import NEWEST, serving_version
    from tf_dpce.export.verify import verify_version
    from tf_dpce.export.versions import find_version

    version = find_version(arguments.path)
    serving = serving_version(arguments.serving_version or NEWEST)
    checks = verify_version(version, serving)
    for check in checks:
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:17}{check.finding}")
    for check in checks:
        if not check.passed:
            message = f"{version} is not fit to serve: {check.name}: {check.finding}"
            raise UserError("verify.failed", f"{message}; export it again", version)
    print(f"{version} answers as the model it was exported from")


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
