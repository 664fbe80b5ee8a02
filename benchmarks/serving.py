"""What the development server answers in a second."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle, product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import numpy as np
import tensorflow as tf

from benchmarks.material import random_captions, random_images, random_model, random_tokenizer
from benchmarks.timing import Row, row
from tf_dpce.config import Config
from tf_dpce.export.publish import write_version
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.logging import progress
from tf_dpce.serving import AsyncClient
from tf_dpce.serving.deployment import write_deployment
from tf_dpce.serving.dev_server import development_server
from tf_dpce.serving.tf_serving import HOST_CONFIG_FILE

_ITEMS = 40
_PATIENCE_SECONDS = 120
_UNITS = ("requests a second", "ms, median", "ms, 99 of 100")

OpenClient = Callable[..., AsyncClient]


class EmptyModule(ServingModule):
    """Takes the same requests, and answers zeros: what is left is the cost of transport."""

    def encode_image(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns zeros for images `[B]`."""
        return self._zeros(image)

    def encode_text(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns zeros for captions `[B]`."""
        return self._zeros(text)

    def _zeros(self, items: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.size(items)
        return {
            "embedding": tf.zeros([count, self.dimension]),
            "status": tf.zeros([count], tf.int32),
        }


_MODEL, _EMPTY = "model", "empty"
_MODELS = {_MODEL: ServingModule, _EMPTY: EmptyModule}


def measure(
    config: Config,
    *,
    words: int = 7_400,
    clients: Sequence[int] = (1, 8, 64),
    seconds: float = 3.0,
    rounds: int = 3,
) -> list[Row]:
    """Loads a server, in a process of its own, with requests of one item each, by gRPC and REST.

    Beside the model, the server has an empty one, whose speed is the limit.

    Args:
        config: its towers are served, with random weights.
        words: number of words in the vocabulary.
        clients: numbers of requests that are under way at a time.
        seconds: length of each measurement.
        rounds: number of measurements of each kind.
    """
    inputs = {
        "encode_image": random_images(_ITEMS, config.seed),
        "encode_text": random_captions(_ITEMS, words),
    }
    # By case and model; each round adds one figure for each of `_UNITS`.
    figures: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(_deployed(Path(folder), config, words)) as (grpc, rest),
        progress("rounds") as display,
    ):
        addresses = {"": f"grpc://127.0.0.1:{grpc}", ", REST": f"http://127.0.0.1:{rest}"}
        for done in range(rounds):
            for way, number, endpoint, model in product(addresses, clients, inputs, _MODELS):
                client = partial(
                    AsyncClient, addresses[way], model, retries=0, timeout=_PATIENCE_SECONDS
                )
                times, elapsed = put_load(client, inputs[endpoint], number, seconds)
                found = (len(times) / elapsed, *np.percentile(times, (50, 99)))
                figures[f"{endpoint}, {number} at a time{way}", model].append(found)
            display.update(done + 1, rounds)
    return list(_rows(figures))


def _deployed(folder: Path, config: Config, words: int) -> Path:
    """Exports both models, and returns the configuration of a server of them."""
    tokenizer = random_tokenizer(config, words)
    network = random_model(config, words, classes=2)
    for name, kind in _MODELS.items():
        module = kind(network, tokenizer, config.image.resize)
        write_version(module, folder / "models" / name / "1", name)
    write_deployment(folder / "models", folder / "deployment")
    return folder / "deployment" / HOST_CONFIG_FILE


def _rows(figures: Mapping[tuple[str, str], Sequence[tuple[float, ...]]]) -> Iterator[Row]:
    """Yields a row for each figure of the model, beside that of the empty one."""
    for (case, model), found in figures.items():
        if model == _MODEL:
            values, limits = np.transpose(found), np.transpose(figures[case, _EMPTY])
            for unit, value, limit in zip(_UNITS, values, limits, strict=True):
                yield row(case, unit, value, "an empty model", limit)


def put_load(
    open_client: OpenClient, items: Sequence[bytes | str], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Sends requests of one item each, `clients` of them at a time, each after the one before.

    Args:
        open_client: makes a client.
        items: images or captions, taken in turn.
        clients: number of requests that are under way at a time.
        seconds: time after which no further request begins.

    Returns:
        The milliseconds that each request took, and the seconds until the last was answered.

    Raises:
        ServingError: a request failed.
    """
    kind = "texts" if isinstance(items[0], str) else "images"
    times: list[float] = []

    async def load() -> float:
        async with open_client(connections=clients) as client:
            # This request connects, and does not count.
            await client.encode_with_status(kind, [items[0]])
            rest, began = cycle(items), perf_counter()

            async def ask() -> None:
                while (start := perf_counter()) < began + seconds:
                    await client.encode_with_status(kind, [next(rest)])
                    times.append(1000 * (perf_counter() - start))

            await asyncio.gather(*(ask() for _ in range(clients)))
            return perf_counter() - began

    elapsed = asyncio.run(load())
    return times, elapsed


@contextmanager
def _server(config: Path) -> Iterator[tuple[int, int]]:
    """Yields the ports of gRPC and REST of a server in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(config, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        # That ends the server.
        ours.close()
        process.join()


def _serve(config: Path, connection: Connection) -> None:
    with development_server(config) as ports:
        connection.send(ports)
        with suppress(EOFError):
            connection.recv()
