"""Makes the table of operations from an installed TensorFlow: `python -m pipelines._operations`.

One call enters one version of one library. For a wheel that was merely unpacked:

    python -m pipelines._operations core 2.13 --tensorflow unpacked/tensorflow
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, say_files, verb_parser


def build_parser() -> ArgumentParser:
    """Returns the parser."""
    parser = verb_parser(
        "_operations", "Enters the operations of an installed TensorFlow into the table."
    )
    parser.add_argument("library", choices=["core", "text"])
    parser.add_argument("version", help="of the library, as TF Serving has it: core 2.20")
    parser.add_argument("--tensorflow", type=Path, help="folder of the package (the installed one)")
    parser.add_argument("--text", type=Path, help="folder of TensorFlow Text's *.so, likewise")
    return parser


def run(arguments: Namespace) -> None:
    """Asks the libraries, merges and writes the table."""
    from tf_dpce.export import operations
    from tf_dpce.export.bare import installed_folders

    tensorflow, text = installed_folders()
    found = operations.registered_operations(
        arguments.tensorflow or tensorflow,
        None if arguments.library == "core" else arguments.text or text,
    )
    table = operations.known_operations().values() if operations.TABLE.exists() else ()
    merged = operations.merge(table, arguments.library, arguments.version, found)
    operations.write_table(operations.TABLE, merged)
    say_files([operations.TABLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it and returns its exit status."""
    return run_verb(build_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
