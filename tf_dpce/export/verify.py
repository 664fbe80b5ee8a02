"""Checks an exported model as TF Serving will run it, against its golden examples.

TF Serving runs a model in a Session of TensorFlow 1, where exports fail that `tf.saved_model.load`
accepts. The Session is in a process of its own, which has nothing of the code that built the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, Differs
from tf_dpce.export.checksums import check_files
from tf_dpce.export.golden import Examples, load_examples
from tf_dpce.export.graph_checks import (
    check_batching,
    check_operations,
    check_placement,
    read_meta_graph,
    signatures_of,
)
from tf_dpce.export.session_process import ModelError, Outputs, one_line, run_calls
from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.export.warmup import read_warmup

TOLERANCE = 1e-5  # of each number of a unit vector
BATCHES = (64, 7, 1)


@dataclass(frozen=True)
class Check:
    """One check of an exported version, and what it found in one line."""

    name: str
    passed: bool
    finding: str


def verify_version(version: Path, serving: str | None = None) -> list[Check]:
    """Checks one exported version.

    Compares its files with their checksums and its operations with those that TF Serving links,
    loads it into a Session in a fresh process, runs every signature on the golden examples in
    batches of `BATCHES` and of none, compares embeddings and statuses with the recorded ones, and
    replays the warm-up requests.

    Args:
        version: the folder NAME/INTEGER.
        serving: a version of TF Serving, one of `operations.SERVING`; by default the newest.

    Raises:
        UserError: if the folder holds no exported version, or not its examples.
    """
    if not (version / MODEL_FILE).is_file():
        message = f"{version} holds no {MODEL_FILE}: give the folder of an exported version"
        raise UserError("export.missing", message, version)
    examples = load_examples(version)
    checks = [_check("files", check_files, version)]
    try:
        meta_graph = read_meta_graph(version)
    except Differs as error:
        return [*checks, Check("graph", False, str(error))]
    checks += [
        _check("operations", check_operations, meta_graph, serving),
        _check("placement", check_placement, meta_graph),
        _check("batching", check_batching, meta_graph),
    ]
    return [*checks, *check_answers(version, meta_graph, examples)]


def check_answers(
    version: Path,
    meta_graph: MetaGraphDef,
    examples: dict[str, Examples],
    run: Callable[..., list[Outputs | str]] = run_calls,
) -> Iterator[Check]:
    """Yields the checks of what every signature and every warm-up request answers.

    Args:
        version: the folder of the version.
        meta_graph: its graph.
        examples: the golden examples of each endpoint.
        run: runs calls of the version, as `run_calls` does.
    """
    batches = {endpoint: _batches(len(examples[endpoint].inputs)) for endpoint in ENDPOINTS}
    signatures = signatures_of(meta_graph)
    names = dict.fromkeys([*ENDPOINTS, *sorted(signatures)])
    # Each signature has the examples of the endpoint with the same input.
    endpoints = {
        name: endpoint
        for name in names
        for endpoint, key in ENDPOINTS.items()
        if name in signatures
        and list(signatures[name].inputs) == [key]
        and ENDPOINTS.get(name, key) == key
    }
    golden = [
        (name, {ENDPOINTS[endpoint]: [examples[endpoint].inputs[row] for row in rows]})
        for name, endpoint in endpoints.items()
        for rows in batches[endpoint]
    ]
    try:
        requests = list(read_warmup(version))
        unreadable = None if requests else "there are no requests"
    except Exception as error:
        requests, unreadable = [], one_line(error)
    try:
        answers = iter(run(version, [*golden, *requests]))
    except ModelError as error:
        yield Check("load", False, str(error))
        return
    yield Check("load", True, "in a Session of a fresh process, by the tag 'serve'")
    for name, endpoint in endpoints.items():
        own = list(islice(answers, len(batches[endpoint])))
        yield _check(name, _compare_all, own, examples[endpoint], batches[endpoint])
    for name in names.keys() - endpoints:
        yield Check(name, False, "it is missing, or takes inputs without examples")
    if unreadable:
        yield Check("warm-up", False, unreadable)
    else:
        yield _check("warm-up", _check_replayed, list(answers))


def _check(name: str, function: Callable[..., str], *arguments: Any) -> Check:
    """Returns what a function finds, or the error that it fails with."""
    try:
        return Check(name, True, function(*arguments))
    except Exception as error:
        return Check(name, False, str(error) if isinstance(error, Differs) else one_line(error))


def _batches(count: int) -> list[np.ndarray]:
    """Returns the rows of the examples in each batch that is tried, the empty one as the last."""
    # Batches of one row need no repeated examples.
    rows = {size: np.arange(max(BATCHES) if size > 1 else count) % count for size in BATCHES}
    batches = [np.split(rows[size], range(size, len(rows[size]), size)) for size in BATCHES]
    return [*(batch for same in batches for batch in same), np.arange(0)]


def _compare_all(
    answers: Sequence[Outputs | str], expected: Examples, batches: Sequence[np.ndarray]
) -> str:
    worst = max(
        _compare(answer, expected, rows) for answer, rows in zip(answers, batches, strict=True)
    )
    sizes = ", ".join(map(str, BATCHES))
    count = len(expected.inputs)
    return f"{count} examples differ by at most {worst:.0e}, in batches of {sizes} and none"


def _compare(answer: Outputs | str, expected: Examples, rows: np.ndarray) -> float:
    """Returns the largest difference of an answer from the examples in some rows."""
    if isinstance(answer, str):
        raise Differs(answer)
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
            f"in a batch of {len(rows)}, examples {rows.tolist()} differ from the recorded ones "
            f"by {difference:.1e}"
        )
    return difference


def _check_replayed(answers: Sequence[Outputs | str]) -> str:
    for answer in answers:
        if isinstance(answer, str):
            raise Differs(answer)
    return f"{len(answers)} requests answered"
