"""Processes that draw, and that end with the one that asked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def drawing_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool whose processes start bare, so that none of them loads TensorFlow."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    # Ctrl-C reaches every process of a terminal: the parent answers it, in one line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent closes no queue: its workers would wait for ever, or draw over the next run.
    multiprocessing.parent_process().join()
    os._exit(1)
