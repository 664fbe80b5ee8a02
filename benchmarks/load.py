"""Many clients at once, each sending one request after the other, for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from tf_dpce.preprocessing import status
from tf_dpce.serving import Client
from tf_dpce.serving.errors import ServingError


@dataclass(frozen=True)
class Item:
    """What a request carries.

    Attributes:
        content: an image's bytes, or a sentence.
        sound: whether it can be encoded.
    """

    content: bytes | str
    sound: bool = True


@dataclass(frozen=True)
class Answered:
    """What became of a request.

    Attributes:
        seconds: that it took.
        right: whether it was answered, and its item called sound or not as it is.
    """

    seconds: float
    right: bool


def put_load(
    open_client: Callable[[], Client], items: Sequence[Item], clients: int, seconds: float
) -> tuple[list[Answered], float]:
    """Sends requests of one item each, by as many clients at a time.

    Args:
        open_client: makes a client; each thread has its own, already connected.
        items: taken in turn.
        clients: threads.
        seconds: after which nobody begins another request.

    Returns:
        What became of each request, and the seconds until the last was answered.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(open_client()) for _ in range(clients)]
        for client in opened:
            _send(client, items[0])
        began = time.perf_counter()

        def ask(place: int) -> list[Answered]:
            answers = []
            while time.perf_counter() < began + seconds:
                item = items[(place + clients * len(answers)) % len(items)]
                answers.append(_send(opened[place], item))
            return answers

        with ThreadPoolExecutor(clients) as threads:
            answers = [answer for found in threads.map(ask, range(clients)) for answer in found]
        return answers, time.perf_counter() - began


def _send(client: Client, item: Item) -> Answered:
    encode = client.texts if isinstance(item.content, str) else client.images
    began = time.perf_counter()
    try:
        _, (code,) = encode([item.content])
        right = (code == status.OK) == item.sound
    except ServingError:
        right = False
    return Answered(time.perf_counter() - began, right)
