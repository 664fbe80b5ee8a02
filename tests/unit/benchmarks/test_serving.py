"""The load on a server: figures of every kind of request, and none that fails."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.serving import Item, measure, put_load
from tests.unit.benchmarks.rows import check_rows
from tests.unit.benchmarks.test_mining import TOWERS
from tf_dpce.config import from_dict
from tf_dpce.serving import AsyncClient


@pytest.mark.process
def test_both_endpoints_are_loaded_and_nothing_fails():
    rows = measure(from_dict(TOWERS), words=30, clients=(1, 3), seconds=0.3, rounds=1)
    timed, failed = rows[:-4], rows[-4:]
    check_rows(timed)
    assert [row.name for row in timed[::3]] == [
        f"{endpoint}, {clients} at a time{way}"
        for way in ("", ", REST")
        for clients in (1, 3)
        for endpoint in ("encode_image", "encode_text")
    ]
    assert [row.unit for row in timed[:3]] == ["requests a second", "ms, median", "ms, 99 of 100"]
    assert [row.name for row in failed] == [
        f"failed while {when}{way}"
        for way in ("", ", REST")
        for when in ("5 % of the inputs are corrupt", "a version is published")
    ]
    assert [row.high for row in failed] == [0] * 4


def test_requests_that_fail_are_counted():
    # Nobody listens at this port.
    client = partial(AsyncClient, "http://127.0.0.1:9", "tiny", retries=0)
    answers, elapsed = put_load(client, [Item("a dog")], clients=2, seconds=0.1)
    assert answers and not any(answer.right for answer in answers)
    assert elapsed >= 0.1
