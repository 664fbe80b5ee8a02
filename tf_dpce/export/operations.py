"""Which operations a graph may have: those that the binary of each TF Serving links, on a CPU.

The table `operations.tsv` lists them: those that TensorFlow and TensorFlow Text register. A test
compares its newest version with what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tf_dpce.errors import UserError
from tf_dpce.export import Differs
from tf_dpce.export.versions import MODEL_FILE

if TYPE_CHECKING:
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

TABLE = Path(__file__).with_name("operations.tsv")

# The known versions of TF Serving, oldest first. It links the TensorFlow of the same number, and
# TensorFlow Text 2.12.1 from 2.13 to 2.19, 2.20.0 in 2.20.
SERVING = tuple(f"2.{minor}" for minor in range(13, 21))
NEWEST = SERVING[-1]

# These pass strings on wherever they are, or call functions whose own nodes are checked.
_PASSING = frozenset(
    "Placeholder Const Identity IdentityN PartitionedCall StatefulPartitionedCall If StatelessIf "
    "Case StatelessCase While StatelessWhile".split()
)
_XLA = "_XlaMustCompile"


@dataclass(frozen=True)
class Operation:
    """One line of the table.

    Attributes:
        name: name of the operation.
        first: the first version of TF Serving, of `SERVING`, that links it.
        last: the last one.
        strings: whether the operation always reads or writes strings, which live in the memory of
            the CPU.
    """

    name: str
    first: str
    last: str
    strings: bool


@cache
def known_operations() -> dict[str, Operation]:
    """Returns the table, by the names of operations."""
    rows = (line.split("\t") for line in TABLE.read_text().splitlines()[1:])
    return {
        name: Operation(name, first, last, kind == "string") for name, first, last, kind in rows
    }


def serving_version(text: str) -> str:
    """Returns the entry of `SERVING` for a version of TF Serving such as 2.19.1.

    Raises:
        UserError: if its operations are not known.
    """
    minor = ".".join(text.split(".")[:2])
    if minor not in SERVING:
        message = f"TF Serving {text} is not known: give a version from {SERVING[0]} to {NEWEST}"
        raise UserError("verify.serving_version", message)
    return minor


def servings_with(name: str) -> tuple[str, ...]:
    """Returns the versions of TF Serving that link an operation, oldest first."""
    operation = known_operations().get(name)
    if operation is None:
        return ()
    return SERVING[SERVING.index(operation.first) : SERVING.index(operation.last) + 1]


def read_meta_graph(version: Path) -> MetaGraphDef:
    """Returns the graph of an exported version that TF Serving loads.

    Raises:
        Differs: if the file is damaged or holds no graph for TF Serving.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
    except DecodeError as error:
        raise Differs(f"{MODEL_FILE} is damaged: {error}") from None
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise Differs("no graph has the tag 'serve'")


def check_operations(meta_graph: MetaGraphDef, serving: str | None = None) -> str:
    """Compares the operations with those that TF Serving links.

    Args:
        meta_graph: the exported graph.
        serving: a version of TF Serving, one of `SERVING`; by default the newest.

    Returns:
        What was found, in one line.

    Raises:
        Differs: if TF Serving lacks an operation, or one needs XLA.
    """
    functions = meta_graph.graph_def.library.function
    nodes = _all_nodes(meta_graph)
    # `jit_compile=False` leaves the attribute there, with the value false.
    if any(item.attr[_XLA].b for item in (*functions, *nodes) if _XLA in item.attr):
        raise Differs("some need XLA, which TF Serving has switched off")
    names = {node.op for node in nodes} - {function.signature.name for function in functions}
    linking = {name: servings_with(name) for name in sorted(names)}
    wanted = serving or NEWEST
    missing = [name for name, having in linking.items() if wanted not in having]
    if missing:
        linked = "; ".join(f"{name}: {_span(linking[name])}" for name in missing)
        raise Differs(f"TF Serving {wanted} lacks operations; versions that have them: {linked}")
    everywhere = [v for v in SERVING if all(v in having for having in linking.values())]
    return f"{len(linking)} kinds, all linked by TF Serving {_span(everywhere)}, none needs XLA"


def check_placement(meta_graph: MetaGraphDef) -> str:
    """Checks on which device operations must run, which a server with a GPU obeys.

    Raises:
        Differs: if an operation with strings may be put on a GPU, or any operation must be.
    """
    known, count = known_operations(), 0
    for node in _all_nodes(meta_graph):
        # A device is written /job:worker/device:CPU:0; only its kind matters here.
        kind = node.device.upper().partition("DEVICE:")[2].partition(":")[0]
        if kind not in ("", "CPU"):
            raise Differs(f"{node.op} ({node.name}) must run on {node.device}")
        always = node.op in known and known[node.op].strings
        if always or (node.op not in _PASSING and _has_strings(node)):
            count += 1
            if not kind:
                raise Differs(f"{node.op} ({node.name}) has strings and may be put on a GPU")
    return f"{count} operations with strings or files stay on the CPU"


def _all_nodes(meta_graph: MetaGraphDef) -> Sequence[NodeDef]:
    """Returns the nodes of the graph and of all functions in its library."""
    graph = meta_graph.graph_def
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def _has_strings(node: NodeDef) -> bool:
    """Returns whether an attribute names the type of strings, alone or in a list of types."""
    from tensorflow.core.framework.types_pb2 import DT_STRING

    return any(
        value.type == DT_STRING or DT_STRING in value.list.type
        for name, value in node.attr.items()
        if not name.startswith("_")
    )


def _span(versions: Sequence[str]) -> str:
    return f"{versions[0]} to {versions[-1]}" if versions else "none"
