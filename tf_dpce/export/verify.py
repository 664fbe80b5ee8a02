"""Checks an exported model as TF Serving will run it, against its golden examples.

TF Serving runs a model in a Session of TensorFlow 1, where exports fail that `tf.saved_model.load`
accepts. The Session is in a process of its own, which has nothing of the code that built the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.export import ENDPOINTS, SIGNATURES, Differs
from tf_dpce.export.checksums import check_files
from tf_dpce.export.golden import Examples, load_examples, read_warmup
from tf_dpce.export.operations import check_operations, check_placement, read_meta_graph
from tf_dpce.export.session_process import Call, ModelError, Outputs, one_line, run_calls

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
        UserError: if the folder holds no golden examples.
    """
    examples = load_examples(version)
    checks = [_check("files", check_files, version)]
    try:
        meta_graph = read_meta_graph(version)
    except Differs as error:
        return [*checks, Check("graph", False, str(error))]
    checks.append(_check("operations", check_operations, meta_graph, serving))
    checks.append(_check("placement", check_placement, meta_graph))
    return [*checks, *check_answers(version, examples)]


def check_answers(
    version: Path,
    examples: dict[str, Examples],
    run: Callable[..., list[Outputs | str]] = run_calls,
) -> Iterator[Check]:
    """Yields the checks of what every signature and every warm-up request answers.

    Args:
        version: the folder of the version.
        examples: the golden examples of each endpoint.
        run: runs calls of the version, as `run_calls` does.
    """
    trials = [
        _Trial(name, (name, {ENDPOINTS[endpoint]: batch.inputs}), batch)
        for name, endpoint in SIGNATURES.items()
        for batch in _batches(examples[endpoint])
    ]
    faults: dict[str, str | None] = dict.fromkeys(SIGNATURES)
    try:
        requests = [_Trial("warm-up", call, None) for call in read_warmup(version)]
        faults["warm-up"] = None if requests else "there are no requests"
    except Exception as error:
        requests, faults["warm-up"] = [], one_line(error)
    trials += requests
    try:
        answers = run(version, [trial.call for trial in trials])
    except ModelError as error:
        yield Check("load", False, str(error))
        return
    yield Check("load", True, "in a Session of a fresh process, by the tag 'serve'")
    for trial, answer in zip(trials, answers, strict=True):
        faults[trial.check] = faults[trial.check] or _fault(answer, trial.expected)
    counts = Counter(trial.check for trial in trials)
    for name, fault in faults.items():
        yield Check(name, fault is None, fault or f"{counts[name]} calls are answered as recorded")


@dataclass(frozen=True)
class _Trial:
    """A call of an exported version for one check; without `expected`, any answer passes."""

    check: str
    call: Call
    expected: Examples | None


def _check(name: str, function: Callable[..., str], *arguments: Any) -> Check:
    """Returns what a function finds, or in what the export differs."""
    try:
        return Check(name, True, function(*arguments))
    except Differs as error:
        return Check(name, False, str(error))


def _batches(examples: Examples) -> Iterator[Examples]:
    """Yields the examples in batches of every size of `BATCHES`, and an empty one."""
    count = len(examples.inputs)
    for size in (*BATCHES, 0):
        # Examples are repeated to fill the largest batch; batches of one row need no repetition.
        rows = np.arange(max(BATCHES) if size > 1 else count * size) % count
        for part in np.split(rows, range(size, len(rows), size)) if size else [rows]:
            inputs = tuple(examples.inputs[row] for row in part)
            yield Examples(inputs, examples.embeddings[part], examples.statuses[part])


def _fault(answer: Outputs | str, expected: Examples | None) -> str | None:
    """Returns in what an answer differs from the recorded one, or None."""
    if isinstance(answer, str) or expected is None:
        return answer if isinstance(answer, str) else None
    rows = (len(expected.inputs),)
    shapes = {key: values.shape for key, values in answer.items()}
    wanted = {"embedding": expected.embeddings.shape, "status": rows}
    if not wanted.items() <= shapes.items() or any(s[:1] != rows for s in shapes.values()):
        return f"in a batch of {rows[0]}, outputs have the shapes {shapes}"
    statuses, codes = answer["status"], expected.statuses
    if not np.array_equal(statuses, codes):
        found = f"{statuses.tolist()}, recorded were {codes.tolist()}"
        return f"in a batch of {rows[0]}, statuses are {found}"
    difference = float(np.max(np.abs(answer["embedding"] - expected.embeddings), initial=0))
    # Written so that NaN fails.
    if not difference <= TOLERANCE:
        return f"in a batch of {rows[0]}, embeddings differ from the recorded by {difference:.1e}"
    return None
