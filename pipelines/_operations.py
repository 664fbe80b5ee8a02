"""Enters operations into the table of TF Serving: `python -m pipelines._operations`.

One call enters the operations of the installed TensorFlow or TensorFlow Text. To enter another
version, call it in an environment where that version is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.errors import UserError
from tf_dpce.export.operations import LIBRARIES, TABLE, Operation, known_operations


def build_parser() -> ArgumentParser:
    """Returns the parser."""
    parser = verb_parser(
        "_operations", "Enters the operations of the installed TensorFlow into the table."
    )
    parser.add_argument("library", choices=list(LIBRARIES))
    parser.add_argument("version", help="of the library, as TF Serving has it: core 2.20")
    return parser


def registered_operations(library: str) -> dict[str, bool]:
    """Returns the operations that TensorFlow or TensorFlow Text registers in this process.

    It must be called before anything else registers operations: TensorFlow Text, for "core".

    Returns:
        By the name of each operation, whether it always reads or writes strings.
    """
    import tensorflow as tf
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.core.framework.types_pb2 import DT_STRING
    from tensorflow.python.client import pywrap_tf_session

    def registered() -> dict[str, bool]:
        buffer = pywrap_tf_session.TF_GetAllOpList()
        operations = OpList.FromString(pywrap_tf_session.TF_GetBuffer(buffer)).op
        return {
            operation.name: any(
                argument.type == DT_STRING
                for argument in (*operation.input_arg, *operation.output_arg)
            )
            for operation in operations
        }

    core = registered()
    if library == "core":
        # Python registers operations of TensorFlow's own tests as well.
        public = set(dir(tf.raw_ops)) | known_operations().keys()
        return {name: strings for name, strings in core.items() if name in public}
    import tensorflow_text  # noqa: F401  registers its operations

    # TF Serving links TensorFlow Text's operations without its metrics.
    known = {*core, "RougeL"}
    return {name: strings for name, strings in registered().items() if name not in known}


def merge(
    table: Iterable[Operation], library: str, version: str, found: dict[str, bool]
) -> list[Operation]:
    """Returns the table with the operations of one version of a library, sorted by name.

    Raises:
        UserError: if no known TF Serving has the version.
    """
    order = LIBRARIES[library]
    if version not in order:
        message = f"{library} {version} is in no TF Serving: known are {', '.join(order)}"
        raise UserError("verify.library_version", message)
    merged = {operation.name: operation for operation in table}
    for name, strings in found.items():
        row = merged.get(name)
        versions = sorted({version, row.first, row.last} if row else {version}, key=order.index)
        merged[name] = Operation(name, library, versions[0], versions[-1], strings)
    return [merged[name] for name in sorted(merged)]


def write_table(path: Path, table: Iterable[Operation]) -> None:
    """Writes the table, tab-separated."""
    lines = ["operation\tlibrary\tfirst\tlast\tkind"]
    for row in table:
        kind = "string" if row.strings else "other"
        lines.append("\t".join((row.name, row.library, row.first, row.last, kind)))
    path.write_text("".join(line + "\n" for line in lines))


def run(arguments: Namespace) -> None:
    """Lists the operations, merges them into the table and writes it."""
    found = registered_operations(arguments.library)
    table = merge(known_operations().values(), arguments.library, arguments.version, found)
    write_table(TABLE, table)
    say_files([TABLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it and returns its exit status."""
    return run_verb(build_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
