"""What a SavedModel's file says, read without TensorFlow: signatures and operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.export.wire import Message

STRING = 7  # TensorFlow's number of the type

_TAG = "serve"
_XLA = "_XlaMustCompile"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Attributes:
        name: in the graph.
        dtype: TensorFlow's number of the type.
        shape: where -1 stands for any size.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """The tensors of a signature, by the names that callers use."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Node:
    """One use of an operation.

    Attributes:
        name: in the graph, or in its function.
        operation: what it computes.
        device: where it must run; empty where that is left open.
        strings: whether an attribute names the type of strings, as it does of most operations
            that take more types than this one.
    """

    name: str
    operation: str
    device: str
    strings: bool


@dataclass(frozen=True)
class SavedGraph:
    """The graph that TF Serving loads.

    Attributes:
        signatures: by their names, without TensorFlow's own.
        nodes: of the graph and of all its functions; calls of these are left out.
        needs_xla: whether a part must be compiled by XLA.
    """

    signatures: dict[str, Signature]
    nodes: tuple[Node, ...]
    needs_xla: bool

    @property
    def operations(self) -> set[str]:
        """The names of all operations."""
        return {node.operation for node in self.nodes}


def read_graph(version: Path) -> SavedGraph:
    """Reads the graph of an exported version.

    Raises:
        ValueError: the file holds no graph for TF Serving.
        google.protobuf.message.DecodeError: the file is damaged.
    """
    # The numbers of fields are those of TensorFlow's saved_model.proto and what it includes.
    saved = Message((version / MODEL_FILE).read_bytes())
    for meta_graph in saved.messages(2):
        if _TAG.encode() in meta_graph.message(1).all(4):
            return _read_meta_graph(meta_graph)
    raise ValueError(f"no graph has the tag '{_TAG}'")


def _read_meta_graph(meta_graph: Message) -> SavedGraph:
    graph = meta_graph.message(2)
    functions = list(graph.message(2).messages(1))
    names = {function.message(1).text(1) for function in functions}
    nodes = [*graph.messages(1), *(node for f in functions for node in f.messages(3))]
    found = (Node(node.text(1), node.text(2), node.text(4), _has_strings(node)) for node in nodes)
    return SavedGraph(
        dict(_read_signatures(meta_graph)),
        tuple(node for node in found if node.operation not in names),
        any(_must_compile(item) for item in (*functions, *nodes)),
    )


def _read_signatures(meta_graph: Message) -> Iterator[tuple[str, Signature]]:
    for name, signature in meta_graph.mapping(5).items():
        if not name.startswith("__"):
            yield name, Signature(_read_tensors(signature, 1), _read_tensors(signature, 2))


def _read_tensors(signature: Message, number: int) -> dict[str, Tensor]:
    return {
        key: Tensor(info.text(1), info.one(2, 0), _read_shape(info.message(3)))
        for key, info in signature.mapping(number).items()
    }


def _read_shape(shape: Message) -> tuple[int, ...]:
    sizes = (dimension.one(1, 0) for dimension in shape.messages(2))
    # A negative number travels as its complement of 64 bits.
    return tuple(size - 2**64 if size >= 2**63 else size for size in sizes)


def _has_strings(node: Message) -> bool:
    for name, value in node.mapping(5).items():
        if not name.startswith("_"):
            # A type, or a list of types: packed, each a byte, or the second of two is a 1.
            types = b"".join(value.message(1).all(6))
            if value.one(6, 0) == STRING or STRING in types:
                return True
    return False


def _must_compile(item: Message) -> bool:
    # Functions and nodes keep their attributes in a field of the same number.
    attribute = item.mapping(5).get(_XLA)
    return attribute is not None and bool(attribute.one(5, 0))
