"""Enters operations into the table of TF Serving: `python -m pipelines._operations VERSION`.

The operations are those of the installed TensorFlow and TensorFlow Text, which must be those that
this TF Serving links. `SERVING` in `tf_dpce/export/operations.py` must name the version first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pipelines._verb import options_verb, say_files
from tf_dpce.export.operations import (
    SERVING,
    TABLE,
    Operation,
    known_operations,
    serving_version,
)


def registered_operations() -> dict[str, bool]:
    """Returns the operations of the installed TensorFlow and TensorFlow Text.

    Call it in a process that registers no other operations.

    Returns:
        By the name of each operation, whether it always reads or writes strings.
    """
    import tensorflow as tf
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.core.framework.types_pb2 import DT_STRING
    from tensorflow.python.client import pywrap_tf_session

    def listed() -> dict[str, bool]:
        operations = OpList.FromString(
            pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
        )
        return {
            op.name: any(arg.type == DT_STRING for arg in (*op.input_arg, *op.output_arg))
            for op in operations.op
        }

    core = listed()
    # Python registers operations of TensorFlow's own tests as well, and TF Serving links
    # TensorFlow Text without its metrics.
    private = core.keys() - dir(tf.raw_ops) - known_operations().keys() | {"RougeL"}
    import tensorflow_text  # noqa: F401  registers its operations

    return {name: strings for name, strings in listed().items() if name not in private}


def merge(table: Iterable[Operation], version: str, found: dict[str, bool]) -> dict[str, Operation]:
    """Returns the table with the operations of one version of TF Serving, sorted by name."""
    merged = {operation.name: operation for operation in table}
    for name, strings in found.items():
        row = merged.get(name)
        versions = sorted({version, row.first, row.last} if row else {version}, key=SERVING.index)
        merged[name] = Operation(name, versions[0], versions[-1], strings)
    return dict(sorted(merged.items()))


def run(version: str, /) -> None:
    """Enters the operations of the installed TensorFlow into the table.

    Args:
        version: of the TF Serving that links this TensorFlow, as 2.20.
    """
    merged = merge(known_operations().values(), serving_version(version), registered_operations())
    lines = ["operation\tfirst\tlast\tkind"]
    for row in merged.values():
        kind = "string" if row.strings else "other"
        lines.append("\t".join((row.name, row.first, row.last, kind)))
    TABLE.write_text("".join(line + "\n" for line in lines))
    say_files([TABLE])


build_parser, main = options_verb("_operations", run)

if __name__ == "__main__":
    sys.exit(main())
