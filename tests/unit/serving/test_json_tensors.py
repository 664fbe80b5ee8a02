"""JSON to arrays of bytes: what does not fit is refused at no greater cost than reading it."""

from __future__ import annotations

import base64
import tracemalloc

from tests.unit.serving.servers import fails
from tf_dpce.serving.json_tensors import COLUMNS, ROWS, parse_inputs


def columns(value):
    return parse_inputs({COLUMNS: value}, ["text"])["text"]


def test_lists_become_arrays_of_their_shape():
    encoded = {"b64": base64.b64encode(b"\xff\0").decode()}
    array = columns([["a", "b"], [encoded, "d"], ["e", ""]])
    assert (array.shape, array.dtype) == ((3, 2), object)
    assert array.tolist() == [[b"a", b"b"], [b"\xff\0", b"d"], [b"e", b""]]
    assert columns("a").shape == ()
    # Lists of none end the nesting, as nothing inside them tells a further length.
    assert [columns(value).shape for value in ([], [[], []])] == [(0,), (2, 0)]


def test_lists_of_unlike_lengths_are_refused():
    for value in (["a", ["b"]], [["a"], "b"], [["a", "b"], ["c"]], [[], ["a"]], [["a"], {}]):
        for request in ({COLUMNS: value}, {ROWS: value}):
            with fails("INVALID_ARGUMENT"):
                parse_inputs(request, ["text"])


def test_first_elements_do_not_say_what_is_allocated():
    # Where each level begins with a list of 3000 and all else are numbers, the lengths of the
    # first elements promise 27 thousand million strings; 9 thousand values were sent.
    level = 1
    for _ in range(3):
        level = [level, *[1] * 2999]
    tracemalloc.start()
    with fails("INVALID_ARGUMENT"):
        columns(level)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


def test_nesting_beyond_what_an_array_has_is_refused():
    for depth in (33, 65, 900):
        value = "a"
        for _ in range(depth):
            value = [value]
        with fails("INVALID_ARGUMENT"):
            columns(value)
        assert columns(value[0] if depth == 33 else ["a"]).size == 1
