"""A request and its address; what a visitor is shown of a fault."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from tests.errors import raises
from tf_dpce.errors import UserError
from tf_dpce.search.answer import Answer as Found
from tf_dpce.search.queries.filters import Filter
from tf_dpce.search.queries.query import Term
from tf_dpce.serving.errors import ServingError
from tf_dpce.web.answers import PAGE_SIZE, Answers, QueryImages, Request

FOUND = Found([], unknown_words=("zebra",), more=True, highest=0.3)
FULL = Request(
    q='"a dog" - 2 * "ball" & more #1 +100% é狗',
    image="ab12",
    like="holidays/2024/ä b.jpg",
    where="width > 640 or name = 'it''s.jpg'",
    folder="o'brien & co",
    taken_from="2024-01-01",
    taken_to="2024-12-31",
    sure=50,
    page=3,
)


def test_a_link_repeats_a_request():
    for request in (Request(), Request("two dogs"), FULL):
        assert Request.parse(request.link()) == request
    assert Request().link() == "?"
    assert Request.parse(FULL.link(page=1, like="")) == Request(
        **{**vars(FULL), "page": 1, "like": ""}
    )


def test_what_a_link_cannot_mean_is_left_out():
    for link in ("", "?", "?page=0&sure=-1", "?page=x&utm=1&__class__=2", "?page=²&sure=1e9"):
        assert Request.parse(link) == Request()
    assert Request.parse("?sure=900&page=99999") == Request(sure=100, page=500)
    with raises("web.link"):
        Request.parse("?q=" + "a" * 20_000)


def test_simple_fields_and_a_condition_are_one_filter():
    rows = [
        {"folder": folder, "width": width, "name": "it's.jpg", "taken": datetime(2024, month, 3)}
        for folder in ("o'brien & co", "dogs")
        for width in (600, 700)
        for month in (1, 12)
    ]
    rows.append({**rows[-1], "folder": "o'brien & co", "taken": None})
    table = pa.Table.from_pylist(rows)

    def passing(**fields: str) -> list[int]:
        condition = Filter.parse(Request("x", **fields).condition).to_arrow(table.schema)
        passed = table.append_column("row", pa.array(range(len(rows)))).filter(condition)
        return passed["row"].to_pylist()

    assert passing(folder="o'brien & co") == [0, 1, 2, 3, 8]
    # The last day counts whole, and who has no date has none in the range.
    assert passing(folder="o'brien & co", taken_from="2024-01-04", taken_to="2024-12-03") == [1, 3]
    # All below a folder, and not what begins like it.
    rows[0]["folder"], rows[1]["folder"], rows[2]["folder"] = "50%/a/b", "50%", "50%x"
    table = pa.Table.from_pylist(rows)
    assert passing(folder="50%") == passing(folder="/50%/") == [0, 1]
    # `or` of the condition binds no looser than the fields.
    assert passing(folder="dogs", where="width > 650 or name = 'it''s.jpg'") == [4, 5, 6, 7]
    assert Request("x").condition == ""


def test_images_that_visitors_sent_make_room_for_the_latest():
    images = QueryImages(most_bytes=10)
    names = [images.add(bytes([n]) * 4) for n in range(2)]
    assert images[names[0]] == b"\0" * 4, "and is the latest used"
    third = images.add(b"\2" * 4)
    with raises("web.query_image"):
        images[names[1]]
    assert images[names[0]] and images[third]
    assert images.add(b"\2" * 4) == third
    with raises("web.query_image"):
        images["../../etc/passwd"]


class Asked:
    """Stands where a Searcher would: it remembers what it was asked, or fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        columns = pa.schema([("id", pa.string()), ("content", pa.string())])
        self.index = SimpleNamespace(columns=lambda kind: columns)

    def search(self, terms: list[Term], **options: Any) -> Any:
        self.terms, self.options = terms, options
        if self.fault:
            raise self.fault
        return FOUND


def test_a_request_becomes_one_search():
    searcher, images = Asked(), QueryImages()
    name = images.add(b"an image")
    request = Request(
        '"dog" - pets/ball.jpg', image=name, like="a.jpg", folder="b", sure=50, page=3
    )
    answer = Answers(searcher, images).answer(request.link())
    # A name in the query is that of an indexed image: no visitor makes this machine read a file.
    assert searcher.terms == [
        Term(1.0, text="dog"),
        Term(-1.0, id="pets/ball.jpg"),
        Term(1.0, image=b"an image"),
        Term(1.0, id="a.jpg"),
    ]
    where = "(folder = 'b' or folder >= 'b/' and folder < 'b0')"
    options = {"where": where, "at_least": 0.5, "skip": 2 * PAGE_SIZE}
    options["hide_duplicates"] = "content"
    assert searcher.options == {"top": PAGE_SIZE, "kind": "images", **options}
    assert (answer.found, answer.fault) == (FOUND, "")
    # A condition stays in its parentheses.
    searcher.terms = []
    assert Answers(searcher, images).answer("?q=a&folder=b&where=c=1) or (d=2").fault
    assert searcher.terms == []
    # A filter alone asks for nothing.
    searcher.terms = []
    assert Answers(searcher, images).answer("?folder=b").found.hits == [] == searcher.terms


SECRET = "/home/someone/index"


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (UserError("search.query", "no word of 'xyz' is known"), "no word of 'xyz' is known"),
        (
            UserError("index.id", "no images with the id a.jpg"),
            "no images with the id a.jpg: drop the image here, or describe it in words",
        ),
        (UserError("search.query", f"{SECRET} is damaged", Path(SECRET)), None),
        (UserError("index.damaged", f"{SECRET} is damaged", Path(SECRET)), None),
        (ServingError("UNAVAILABLE", f"http://{SECRET}: refused"), None),
        (ZeroDivisionError(SECRET), None),
        (FileNotFoundError(2, "No such file", SECRET), None),
    ],
)
def test_a_fault_is_said_without_paths(fault: Exception, shown: str | None):
    answer = Answers(Asked(fault), QueryImages()).answer("?q=dog")
    assert answer.fault and "someone" not in answer.fault and "Traceback" not in answer.fault
    assert shown is None or answer.fault == shown
    assert answer.request == Request("dog")
