"""What can be seen of an exported version without loading it."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.export.graph import STRING, SavedGraph
from tf_dpce.export.operations import NEWEST, SERVING, known_operations, servings_with
from tf_dpce.export.report import Differs
from tf_dpce.export.seal import FILE, broken_files, read_seal

# These pass on what they are given, wherever that is, or call functions whose own nodes are
# looked at.
_PASSING = {
    *("Placeholder", "Const", "Identity", "IdentityN"),
    *("PartitionedCall", "StatefulPartitionedCall"),
    *("If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile"),
}


def look_at_files(version: Path) -> str:
    """Compares every file with the digest it had when the version was made.

    Raises:
        Differs: a file is not what it was, or nobody knows.
    """
    if not (version / FILE).is_file():
        raise Differs(f"there is no {FILE}, which tells damaged files")
    broken = list(broken_files(version))
    if broken:
        raise Differs(", ".join(broken))
    return f"{len(read_seal(version))} files are as they were made"


def look_at_operations(graph: SavedGraph, serving: str | None) -> str:
    """Compares the operations with those that TF Serving links.

    Args:
        graph: of the version.
        serving: the version of TF Serving, as `SERVING` has it; the newest where it is None.

    Raises:
        Differs: one is missing there, or needs XLA.
    """
    if graph.needs_xla:
        raise Differs("some need XLA, which TF Serving has switched off")
    linking = {name: servings_with(name) for name in sorted(graph.operations)}
    wanted = serving or NEWEST
    missing = [_missing(name, having, wanted) for name, having in linking.items()]
    if any(missing):
        raise Differs("; ".join(filter(None, missing)))
    everywhere = [v for v in SERVING if all(v in having for having in linking.values())]
    return f"{len(linking)} kinds, all linked by TF Serving {_span(everywhere)}, none needs XLA"


def look_at_placement(graph: SavedGraph) -> str:
    """Looks where operations must run, which a server with a GPU obeys.

    Raises:
        Differs: one with strings may be put on a GPU, or one must run on another device.
    """
    known, count = known_operations(), 0
    for node in graph.nodes:
        # A place is written /job:worker/device:CPU:0; only its kind matters here.
        kind = node.device.upper().partition("DEVICE:")[2].partition(":")[0]
        if kind not in ("", "CPU"):
            raise Differs(f"{node.operation} ({node.name}) must run on {node.device}")
        always = node.operation in known and known[node.operation].strings
        if always or (node.strings and node.operation not in _PASSING):
            count += 1
            if not kind:
                raise Differs(f"{node.operation} ({node.name}) has strings, and no place on a host")
    return f"{count} operations with strings or files stay on the host"


def look_at_shapes(graph: SavedGraph) -> str:
    """Looks whether every input takes strings `[B]` and every output has B rows, for any B.

    Raises:
        Differs: one does not, so that TF Serving could not batch requests.
    """
    for name, signature in graph.signatures.items():
        for key, tensor in signature.inputs.items():
            if (tensor.dtype, tensor.shape) != (STRING, (-1,)):
                raise Differs(f"{name} takes {key} of shape {tensor.shape}, no batch of strings")
        for key, tensor in signature.outputs.items():
            if tensor.shape[:1] != (-1,):
                raise Differs(f"{name} gives {key} of shape {tensor.shape}, no batch")
    return f"{len(graph.signatures)} signatures take and give any number of rows"


def _missing(name: str, having: list[str], wanted: str) -> str | None:
    if wanted in having:
        return None
    if not having:
        return f"{name} is in no TF Serving from {_span(list(SERVING))}"
    order = list(SERVING).index
    if order(wanted) < order(having[0]):
        return f"{name} is not in TF Serving {wanted}: {having[0]} is the first that has it"
    return f"{name} is not in TF Serving {wanted}: {having[-1]} was the last that had it"


def _span(versions: list[str]) -> str:
    return f"{versions[0]} to {versions[-1]}"
