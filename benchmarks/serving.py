"""What the development server answers in a second, and that publishing costs no request."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path

import numpy as np

from benchmarks.material import (
    random_images,
    random_model,
    random_sentences,
    random_vocabulary,
)
from benchmarks.timing import Row, row
from tf_dpce.config import Config
from tf_dpce.errors import UserError
from tf_dpce.export.publish import export_model
from tf_dpce.export.versions import publish_version
from tf_dpce.logging import progress
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.serving import AsyncClient
from tf_dpce.serving.deployment import write_deployment
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.tf_serving import HOST_CONFIG_FILE

_NAME = "random"
_ITEMS = 40
_PATIENCE_SECONDS = 120
_SERVER = (
    "import sys, pathlib; from tf_dpce.serving.dev_server import development_server\n"
    "with development_server(pathlib.Path(sys.argv[1])) as ports:\n"
    "    sys.stdout.write(f'{ports[0]} {ports[1]}\\n'); sys.stdout.flush(); sys.stdin.read()"
)

OpenClient = Callable[..., AsyncClient]


@dataclass(frozen=True)
class Item:
    """What a request carries.

    Attributes:
        content: the bytes of an image, or a caption.
        sound: whether it can be encoded.
    """

    content: bytes | str
    sound: bool = True


@dataclass(frozen=True)
class Answered:
    """A request that has ended.

    Attributes:
        seconds: how long it took.
        right: whether it was answered, and its status says whether the item is sound.
    """

    seconds: float
    right: bool


Inputs = Mapping[str, Sequence[Item]]


def measure(
    config: Config,
    *,
    words: int = 7_400,
    clients: Sequence[int] = (1, 8, 64),
    seconds: float = 5.0,
    rounds: int = 3,
) -> list[Row]:
    """Loads a server, in a process of its own, with requests of one item each, by gRPC and REST.

    Args:
        config: its towers are served, with random weights.
        words: number of words in the vocabulary.
        clients: numbers of requests that are under way at a time.
        seconds: length of each measurement.
        rounds: number of measurements of each kind; one more looks for requests that fail.
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
                way: partial(AsyncClient, address, _NAME, retries=0, timeout=_PATIENCE_SECONDS)
                for way, address in addresses.items()
            }
            rows = _throughput(ways, inputs, clients, seconds, rounds)
            for way, client in ways.items():
                rows += _failures(way, client, inputs, max(clients), seconds, models / _NAME)
    return rows


def put_load(
    open_client: OpenClient, items: Sequence[Item], clients: int, seconds: float
) -> tuple[list[Answered], float]:
    """Sends requests of one item each, `clients` of them at a time, each after the one before.

    Args:
        open_client: makes a client.
        items: images or captions, taken in turn.
        clients: number of requests that are under way at a time.
        seconds: time after which no further request begins.

    Returns:
        The requests, and the seconds until the last was answered.
    """

    async def send(client: AsyncClient, item: Item) -> Answered:
        kind = "texts" if isinstance(item.content, str) else "images"
        began = time.perf_counter()
        try:
            _, (code,) = await client.encode_with_status(kind, [item.content])
            right = (code == status.OK) == item.sound
        except ServingError:
            right = False
        return Answered(time.perf_counter() - began, right)

    async def load() -> tuple[list[Answered], float]:
        async with open_client(connections=clients) as client:
            await send(client, items[0])
            rest, answers = cycle(items), []
            began = time.perf_counter()

            async def ask() -> None:
                while time.perf_counter() < began + seconds:
                    answers.append(await send(client, next(rest)))

            await asyncio.gather(*(ask() for _ in range(clients)))
            return answers, time.perf_counter() - began

    return asyncio.run(load())


def _export(config: Config, words: int, models: Path) -> list[str]:
    vocabulary = random_vocabulary(words)
    tokenizer = CaptionTokenizer(vocabulary, config.text.max_length, lowercase=True)
    model = random_model(config, words, classes=2)
    export_model(model, tokenizer, models / _NAME, resize=config.image.resize)
    return vocabulary


@contextmanager
def _served(models: Path, deployment: Path) -> Iterator[dict[str, str]]:
    """Yields the addresses of a server, by the names of the ways in the rows."""
    write_deployment(models, deployment)
    root = str(Path(__file__).parents[1])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # The decoder of images writes a line there for every damaged file.
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
            raise UserError("benchmark.server", f"the server did not start: {reason}")
        # Leaving the block closes its input, which ends the server.
        yield {"": f"grpc://127.0.0.1:{ports[0]}", ", REST": f"http://127.0.0.1:{ports[1]}"}


def _throughput(
    ways: Mapping[str, OpenClient],
    inputs: Inputs,
    clients: Sequence[int],
    seconds: float,
    rounds: int,
) -> list[Row]:
    figures = {}
    with progress("rounds") as display:
        for done in range(rounds):
            for (way, client), number, (name, items) in product(
                ways.items(), clients, inputs.items()
            ):
                answers, elapsed = put_load(client, items, number, seconds)
                times = [1000 * answer.seconds for answer in answers]
                found = (len(times) / elapsed, *np.percentile(times, (50, 99)))
                figures.setdefault(f"{name}, {number} at a time{way}", []).append(found)
            display.update(done + 1, rounds)
    units = ("requests a second", "ms, median", "ms, 99 of 100")
    return [
        row(name, unit, values)
        for name, found in figures.items()
        for unit, values in zip(units, np.transpose(found), strict=True)
    ]


def _failures(
    way: str, client: OpenClient, inputs: Inputs, clients: int, seconds: float, model: Path
) -> list[Row]:
    """Counts requests that fail while inputs are corrupt, and while a version is published."""

    def failed(when: str, inputs: Inputs) -> Row:
        answers = [
            answer
            for items in inputs.values()
            for answer in put_load(client, items, clients, seconds)[0]
        ]
        missed = sum(not answer.right for answer in answers)
        return row(f"failed while {when}{way}", f"of {len(answers):,} requests", [missed])

    def publish() -> None:
        publish_version(model, lambda new: shutil.copytree(model / "1", new, dirs_exist_ok=True))

    corrupt = failed(
        "5 % of the inputs are corrupt", {name: _corrupt(items) for name, items in inputs.items()}
    )
    publishing = threading.Timer(seconds / 10, publish)
    publishing.start()
    published = failed("a version is published", inputs)
    publishing.join()
    return [corrupt, published]


def _corrupt(items: Sequence[Item]) -> list[Item]:
    """Returns the items with one in twenty of no use: half a file, or a word nobody knows."""
    found = list(items)
    for index in range(0, len(found), 20):
        content = found[index].content
        half = content[: len(content) // 2] if isinstance(content, bytes) else "unknown"
        found[index] = Item(half, sound=False)
    return found
