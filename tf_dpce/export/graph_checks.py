"""Checks of an exported graph that need not run it: operations, placement and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef, TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_dpce.export import Differs
from tf_dpce.export.operations import NEWEST, SERVING, known_operations, servings_with
from tf_dpce.export.versions import MODEL_FILE

# These pass strings on wherever they are, or call functions whose own nodes are checked.
_PASSING = frozenset(
    "Placeholder Const Identity IdentityN PartitionedCall StatefulPartitionedCall If StatelessIf "
    "Case StatelessCase While StatelessWhile".split()
)
_XLA = "_XlaMustCompile"


def read_meta_graph(version: Path) -> MetaGraphDef:
    """Returns the graph of an exported version that TF Serving loads.

    Raises:
        Differs: if the file is damaged or holds no graph for TF Serving.
    """
    try:
        saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
    except DecodeError as error:
        raise Differs(f"{MODEL_FILE} is damaged: {error}") from None
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise Differs("no graph has the tag 'serve'")


def signatures_of(meta_graph: MetaGraphDef) -> dict[str, SignatureDef]:
    """Returns the signatures by name, without TensorFlow's own."""
    signatures = meta_graph.signature_def.items()
    return {name: found for name, found in signatures if not name.startswith("__")}


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


def check_batching(meta_graph: MetaGraphDef) -> str:
    """Checks that every input takes strings `[B]` and every output has B rows, for any B.

    Raises:
        Differs: if TF Serving could not batch requests.
    """
    signatures = signatures_of(meta_graph)
    for name, signature in signatures.items():
        for key, tensor in signature.inputs.items():
            if tensor.dtype != DT_STRING or _shape(tensor) != [-1]:
                raise Differs(f"{name} takes {key} of shape {_shape(tensor)}, no batch of strings")
        for key, tensor in signature.outputs.items():
            if _shape(tensor)[:1] != [-1]:
                raise Differs(f"{name} returns {key} of shape {_shape(tensor)}, no batch")
    return f"{len(signatures)} signatures take and return any number of rows"


def _all_nodes(meta_graph: MetaGraphDef) -> Sequence[NodeDef]:
    """Returns the nodes of the graph and of all functions in its library."""
    graph = meta_graph.graph_def
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def _has_strings(node: NodeDef) -> bool:
    """Returns whether an attribute names the type of strings, alone or in a list of types."""
    return any(
        value.type == DT_STRING or DT_STRING in value.list.type
        for name, value in node.attr.items()
        if not name.startswith("_")
    )


def _shape(tensor: TensorInfo) -> list[int]:
    return [dimension.size for dimension in tensor.tensor_shape.dim]


def _span(versions: Sequence[str]) -> str:
    return f"{versions[0]} to {versions[-1]}" if versions else "none"
