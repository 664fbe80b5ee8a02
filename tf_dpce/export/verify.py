"""Checks an exported model as TF Serving will run it, against its recorded examples.

TF Serving runs a model in a Session of the first TensorFlow generation, where exports fail that
`tf.saved_model.load` accepts. Nothing here touches the code that built the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, examples, warmup
from tf_dpce.export.examples import Examples
from tf_dpce.export.session import SessionModel, open_session
from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.export.warmup import Request

TOLERANCE = 1e-5  # of each number of a unit vector

_TRACE_HEADING = "Graph execution error:"
_FRESH = (
    "import sys, pathlib; from tf_dpce.export import verify; "
    "sys.stdout.write(verify.verify_version(pathlib.Path(sys.argv[1])).to_json())"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class Report:
    """All that was looked at in one exported version."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> list[str]:
        """One line for each check that failed."""
        return [f"{check.name}: {check.finding}" for check in self.checks if not check.passed]

    def to_json(self) -> str:
        """Returns the report as JSON, for `from_json`."""
        return json.dumps([asdict(check) for check in self.checks])

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads what `to_json` wrote."""
        return cls(tuple(Check(**check) for check in json.loads(text)))


class _Differs(Exception):
    """The export is not what it should be."""


def verify_version(path: Path) -> Report:
    """Checks one exported version in this process.

    Loads it into a Session, runs every endpoint on the recorded examples (all at once, by 7,
    one by one and none), compares embeddings and statuses with the recorded ones, looks for
    operations that need XLA, and replays the warm-up requests.

    Args:
        path: the folder of the version, NAME/INTEGER.

    Raises:
        UserError: the folder holds no exported version, or not its examples.
    """
    if not (path / MODEL_FILE).is_file():
        raise UserError(f"{path} holds no {MODEL_FILE}: give the folder of an exported version")
    recorded = examples.load_examples(path / examples.FILE, ENDPOINTS)
    try:
        requests = list(warmup.read_warmup(path / warmup.FILE))
        with open_session(path) as served:
            return Report(tuple(_checks(served, recorded, requests)))
    except Exception as error:
        return Report((Check("load", False, _one_line(error)),))


def verify_in_fresh_process(path: Path) -> Report:
    """Checks one exported version in a new process, which shares nothing with this one."""
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, str(path)],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return Report((Check("process", False, lines[-1]),))
    return Report.from_json(done.stdout.splitlines()[-1])


def _checks(
    served: SessionModel, recorded: dict[str, Examples], requests: list[Request]
) -> Iterator[Check]:
    yield Check("load", True, "in a Session, by the tag 'serve'")
    yield _check("operations", _look_at_operations, served.meta_graph)
    for endpoint, expected in recorded.items():
        yield _check(endpoint, _compare_endpoint, served, endpoint, expected)
    yield _check("warm-up", _replay, served, requests)


def _check(name: str, look: Callable[..., str], *arguments: Any) -> Check:
    try:
        return Check(name, True, look(*arguments))
    except Exception as error:
        return Check(name, False, _one_line(error))


def _look_at_operations(meta_graph: MetaGraphDef) -> str:
    functions = meta_graph.graph_def.library.function
    nodes = [*meta_graph.graph_def.node, *(n for f in functions for n in f.node_def)]
    if any("_XlaMustCompile" in item.attr for item in (*functions, *nodes)):
        raise _Differs("some need XLA, which TF Serving has switched off")
    return f"{len({node.op for node in nodes})} kinds, none needs XLA"


def _compare_endpoint(served: SessionModel, endpoint: str, expected: Examples) -> str:
    count = len(expected.inputs)
    worst = 0.0
    for size in (count, 7, 1):
        for start in range(0, count, size):
            rows = slice(start, start + size)
            found = served.encode(endpoint, expected.inputs[rows])
            worst = max(worst, _compare(found, expected, rows))
    embedding, status = served.encode(endpoint, ())
    if embedding.shape != (0, expected.embeddings.shape[1]) or status.shape != (0,):
        raise _Differs(f"a batch of none gives shapes {embedding.shape} and {status.shape}")
    return f"{count} examples differ by at most {worst:.0e}, in batches of {count}, 7, 1 and none"


def _compare(found: tuple[np.ndarray, np.ndarray], expected: Examples, rows: slice) -> float:
    embeddings, statuses = found
    wanted, codes = expected.embeddings[rows], expected.statuses[rows]
    if embeddings.shape != wanted.shape or not np.array_equal(statuses, codes):
        raise _Differs(
            f"examples {rows.start} on have shape {embeddings.shape} and status "
            f"{statuses.tolist()}, recorded were {wanted.shape} and {codes.tolist()}"
        )
    difference = float(np.max(np.abs(embeddings - wanted)))
    # Written so that NaN fails.
    if not difference <= TOLERANCE:
        raise _Differs(f"examples {rows.start} on differ from the recorded by {difference:.1e}")
    return difference


def _replay(served: SessionModel, requests: list[Request]) -> str:
    if not requests:
        raise _Differs("no requests")
    for endpoint, inputs in requests:
        served.run(endpoint, inputs)
    return f"{len(requests)} requests answered"


def _one_line(error: Exception) -> str:
    """Returns what an error says, without the trace that TensorFlow hangs on."""
    lines = [line for line in str(error).splitlines() if line and line != _TRACE_HEADING]
    text = lines[0] if lines else ""
    return text if isinstance(error, _Differs) else f"{type(error).__name__}: {text}"
