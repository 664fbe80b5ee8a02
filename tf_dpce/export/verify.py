"""Checks an exported model as TF Serving will run it, against its recorded examples.

TF Serving runs a model in a Session of the first TensorFlow generation, where exports fail that
`tf.saved_model.load` accepts. That Session is in a process of its own, which knows nothing of the
code that built the model; here, not even TensorFlow is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, examples, static
from tf_dpce.export.examples import Examples
from tf_dpce.export.graph import SavedGraph, read_graph
from tf_dpce.export.process import ModelError, ModelProcess, open_process
from tf_dpce.export.replay import FILE as WARMUP
from tf_dpce.export.replay import read_warmup
from tf_dpce.export.report import Check, Differs, Report, failed, look
from tf_dpce.export.versions import MODEL_FILE

TOLERANCE = 1e-5  # of each number of a unit vector
BATCHES = (64, 7, 1)


def verify_version(path: Path, serving: str | None = None, bare: bool = False) -> Report:
    """Checks one exported version.

    Compares its files with their digests and its operations with those that TF Serving links,
    loads it into a Session in a fresh process, runs every signature on the recorded examples in
    batches of `BATCHES` and of none, compares embeddings and statuses with the recorded ones, and
    replays the warm-up requests.

    Args:
        path: the folder of the version, NAME/INTEGER.
        serving: the version of TF Serving, as `operations.SERVING` has it; the newest where None.
        bare: whether the Session is opened through the C library, without Python TensorFlow.

    Raises:
        UserError: the folder holds no exported version, or not its examples.
    """
    if not (path / MODEL_FILE).is_file():
        raise UserError(f"{path} holds no {MODEL_FILE}: give the folder of an exported version")
    recorded = examples.load_examples(path / examples.FILE, ENDPOINTS)
    return Report(tuple(_checks(path, recorded, serving, bare)))


def check_calls(served: ModelProcess, path: Path, recorded: dict[str, Examples]) -> Iterator[Check]:
    """Yields what calls of every signature and of the warm-up requests answer.

    Args:
        served: the version.
        path: its folder.
        recorded: the examples of each endpoint.
    """
    for name in dict.fromkeys([*recorded, *served.graph.signatures]):
        yield look(name, _compare_signature, served, name, recorded)
    yield look("warm-up", _replay, served, path / WARMUP)


def _checks(
    path: Path, recorded: dict[str, Examples], serving: str | None, bare: bool
) -> Iterator[Check]:
    yield look("files", static.look_at_files, path)
    try:
        graph = read_graph(path)
    except (ValueError, DecodeError) as error:
        yield failed("graph", error)
        return
    yield look("operations", static.look_at_operations, graph, serving)
    yield look("placement", static.look_at_placement, graph)
    yield look("batching", static.look_at_shapes, graph)
    try:
        with open_process(path, bare) as served:
            way = "the C library" if bare else "a v1 Session"
            yield Check("load", True, f"in {way} of a fresh process, by the tag 'serve'")
            yield from check_calls(served, path, recorded)
    except ModelError as error:
        yield failed("load", error)


def _compare_signature(served: ModelProcess, name: str, recorded: dict[str, Examples]) -> str:
    endpoint = _endpoint_like(served.graph, name)
    expected, key = recorded[endpoint], ENDPOINTS[endpoint]
    count, worst = len(expected.inputs), 0.0
    for size in BATCHES:
        # One by one, once is enough.
        rows = np.arange(max(BATCHES) if size > 1 else count) % count
        for batch in np.split(rows, range(size, len(rows), size)):
            answer = served.run(name, {key: [expected.inputs[row] for row in batch]})
            worst = max(worst, _compare(answer, expected, batch))
    answer = served.run(name, {key: []})
    _compare(answer, expected, np.arange(0))
    sizes = ", ".join(map(str, BATCHES))
    return f"{count} examples differ by at most {worst:.0e}, in batches of {sizes} and none"


def _endpoint_like(graph: SavedGraph, name: str) -> str:
    if name not in graph.signatures:
        raise Differs(f"there is no endpoint {name}")
    inputs = set(graph.signatures[name].inputs)
    for endpoint, key in ENDPOINTS.items():
        if inputs == {key}:
            return endpoint
    raise Differs(f"it takes {sorted(inputs)}, of which there are no examples")


def _compare(answer: dict[str, np.ndarray], expected: Examples, rows: np.ndarray) -> float:
    for key, values in answer.items():
        if values.shape[:1] != rows.shape:
            raise Differs(f"{key} has shape {values.shape} for a batch of {len(rows)}")
    wanted, codes = expected.embeddings[rows], expected.statuses[rows]
    embeddings, statuses = answer["embedding"], answer["status"]
    if embeddings.shape != wanted.shape or not np.array_equal(statuses, codes):
        raise Differs(
            f"in a batch of {len(rows)}, examples {rows.tolist()} have shape {embeddings.shape} "
            f"and status {statuses.tolist()}, recorded were {wanted.shape} and {codes.tolist()}"
        )
    difference = float(np.max(np.abs(embeddings - wanted), initial=0))
    # Written so that NaN fails.
    if not difference <= TOLERANCE:
        raise Differs(
            f"in a batch of {len(rows)}, examples {rows.tolist()} differ from the recorded by "
            f"{difference:.1e}"
        )
    return difference


def _replay(served: ModelProcess, path: Path) -> str:
    requests = list(read_warmup(path))
    if not requests:
        raise Differs("no requests")
    for endpoint, inputs in requests:
        served.run(endpoint, inputs)
    return f"{len(requests)} requests answered"
