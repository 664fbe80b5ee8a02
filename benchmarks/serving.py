"""What the development server answers in a second, and that publishing costs no request."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.load import Item, put_load
from benchmarks.material import (
    random_images,
    random_model,
    random_sentences,
    random_vocabulary,
)
from benchmarks.timing import Report, Row, row, silent
from tf_dpce.config import Config
from tf_dpce.errors import UserError
from tf_dpce.export.publish import export_model
from tf_dpce.export.versions import publish_version, version_numbers
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.serving import Client
from tf_dpce.serving.deployment import HOST_CONFIG_FILE, write_deployment
from tf_dpce.serving.errors import ServingError

_NAME = "random"
_ITEMS = 40
_SPOILT = slice(None, None, 20)  # 5 %
_PATIENCE_SECONDS = 120
_SERVER = (
    "import sys, pathlib; from tf_dpce.serving.dev_server import development_server\n"
    "with development_server(pathlib.Path(sys.argv[1])) as ports:\n"
    "    sys.stdout.write(f'{ports[0]} {ports[1]}\\n'); sys.stdout.flush(); sys.stdin.read()"
)

OpenClient = Callable[..., Client]
Inputs = Mapping[str, list[Item]]


def measure(
    config: Config,
    progress: Report = silent,
    *,
    words: int = 7_400,
    clients: Sequence[int] = (1, 8, 64),
    seconds: float = 5.0,
    rounds: int = 3,
) -> list[Row]:
    """Loads a server, in a process of its own, with requests of one item each, by gRPC and REST.

    Args:
        config: whose towers are served, with random weights.
        progress: called with the rounds done and their total.
        words: of the vocabulary.
        clients: how many at a time.
        seconds: of each measurement.
        rounds: of measurements by each; one more looks for requests that fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        vocabulary = _export(config, words, models)
        inputs = {
            "encode_image": [Item(content) for content in random_images(_ITEMS, config.seed)],
            "encode_text": [Item(text) for text in random_sentences(_ITEMS, vocabulary)],
        }
        with _served(models, Path(folder) / "deployment") as addresses:
            ways = {
                way: partial(Client, address, _NAME, retries=0, timeout=_PATIENCE_SECONDS)
                for way, address in addresses.items()
            }
            rows = _throughput(ways, inputs, clients, seconds, rounds, progress)
            for way, client in ways.items():
                rows += _all_misses(way, client, inputs, clients, seconds, models / _NAME)
    progress(rounds + 1, rounds + 1)
    return rows


def _export(config: Config, words: int, models: Path) -> list[str]:
    vocabulary = random_vocabulary(words)
    tokenizer = CaptionTokenizer(vocabulary, config.text.max_length, lowercase=True)
    model = random_model(config, words, classes=2)
    export_model(model, tokenizer, models / _NAME, resize=config.image.resize)
    return vocabulary


def _spoil(items: Sequence[Item]) -> list[Item]:
    """Returns the items with one in twenty of no use: half a file, or a word nobody knows."""
    spoilt = list(items)
    spoilt[_SPOILT] = [Item(_useless(item.content), sound=False) for item in items[_SPOILT]]
    return spoilt


def _useless(content: bytes | str) -> bytes | str:
    return content[: len(content) // 2] if isinstance(content, bytes) else "unknown"


@contextmanager
def _served(models: Path, deployment: Path) -> Iterator[dict[str, str]]:
    """Yields the addresses of a server, by what is said of requests to each."""
    write_deployment(models, deployment)
    root = str(Path(__file__).parents[1])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # The decoder complains there of every damaged file.
    complaints = deployment / "complaints"
    with (
        complaints.open("wb") as stream,
        subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(deployment / HOST_CONFIG_FILE)],
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        ) as process,
    ):
        ports = process.stdout.readline().split()
        if not ports:
            reason = complaints.read_text(errors="replace").strip().rpartition("\n")[2]
            raise UserError(f"the server did not start: {reason}")
        # Leaving the block closes its input, which ends the server.
        yield {"": f"grpc://127.0.0.1:{ports[0]}", ", REST": f"http://127.0.0.1:{ports[1]}"}


def _throughput(
    ways: Mapping[str, OpenClient],
    inputs: Inputs,
    clients: Sequence[int],
    seconds: float,
    rounds: int,
    progress: Report,
) -> list[Row]:
    figures = {}
    for done in range(rounds):
        for (way, client), number, (name, items) in product(ways.items(), clients, inputs.items()):
            answers, elapsed = put_load(client, items, number, seconds)
            times = [1000 * answer.seconds for answer in answers]
            found = (len(times) / elapsed, *np.percentile(times, (50, 99)))
            figures.setdefault(f"{name}, {number} at a time{way}", []).append(found)
        progress(done + 1, rounds + 1)
    units = ("requests a second", "ms, median", "ms, 99 of 100")
    return [
        row(name, unit, values)
        for name, found in figures.items()
        for unit, values in zip(units, np.transpose(found), strict=True)
    ]


def _all_misses(
    way: str,
    client: OpenClient,
    inputs: Inputs,
    clients: Sequence[int],
    seconds: float,
    model: Path,
) -> list[Row]:
    spoilt = {name: _spoil(items) for name, items in inputs.items()}
    corrupt = _misses(f"5 % of the inputs are corrupt{way}", client, spoilt, clients, seconds)
    threading.Timer(seconds / 2, _publish_again, [model]).start()
    published = partial(_answers, client, version=version_numbers(model)[-1] + 1)
    when = f"a version is published{way}"
    return [corrupt, _misses(when, client, inputs, clients, seconds, published)]


def _misses(
    when: str,
    client: OpenClient,
    inputs: Inputs,
    clients: Sequence[int],
    seconds: float,
    done: Callable[[], bool] = lambda: True,
) -> Row:
    """Counts requests that fail, and items that are judged wrongly, by all clients at once."""
    end = time.monotonic() + _PATIENCE_SECONDS
    answers = []
    while not answers or not done():
        if time.monotonic() > end:
            raise UserError(f"{_PATIENCE_SECONDS} s did not suffice while {when}: stop other work")
        for items in inputs.values():
            answers += put_load(client, items, max(clients), seconds)[0]
    missed = sum(not answer.right for answer in answers)
    return row(f"failed while {when}", f"of {len(answers):,} requests", [missed])


def _publish_again(model: Path) -> None:
    publish_version(model, lambda aside: shutil.copytree(model / "1", aside, dirs_exist_ok=True))


def _answers(client: OpenClient, version: int) -> bool:
    with client(version=version) as one:
        try:
            one.encode_with_status("texts", ["word0"])
        except ServingError:
            return False
        return True
