"""What the verbs that search print of an answer, and what they say of it."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines._hits import Asked, show_answer
from tf_dpce.search.answer import Answer, Hit

ASKED = Asked({"text": "a dog"}, kind="images", top=2, count=9, lost="somewhere else")


@pytest.fixture
def shown(capsys, caplog, tmp_path: Path):
    """Shows an answer of some hits; returns stdout and what was logged."""
    (tmp_path / "a.jpg").write_bytes(b"image")

    def show(
        *hits: dict, asked: Asked = ASKED, json_: bool = False, **fields
    ) -> tuple[str, list[str]]:
        path = str(tmp_path / "a.jpg")
        made = [
            Hit(rank, f"{rank}.jpg", 0.5, **{"path": path} | h) for rank, h in enumerate(hits, 1)
        ]
        caplog.clear()
        show_answer(Answer(made, **fields), asked, json_, sheet=None)
        return capsys.readouterr().out, caplog.messages[:]

    return show


def test_the_table_has_the_columns_that_are_known(shown):
    header, *_ = [line for line in shown({}, {})[0].splitlines() if "rank" in line]
    assert "probability" not in header and "hidden" not in header
    out, err = shown({"probability": 0.876, "duplicates": ("b", "c")}, {"probability": 0.004})
    assert "88 %" in out and "0 %" in out and err == []
    first, second = (line for line in out.splitlines() if ".jpg" in line and "│" in line)
    assert [cell.strip() for cell in first.split("│")][1:5] == ["1", "0.5000", "88 %", "2"]
    assert [cell.strip() for cell in second.split("│")][1:5] == ["2", "0.5000", "0 %", "0"]


def test_names_are_shown_as_they_are_and_steer_no_terminal(shown):
    out, _ = shown({"path": "/none/[red]a\x1b]0;title\x07\n.jpg"}, {})
    assert "[red]a\\x1b]0;title\\x07\\n.jpg" in out and "\x1b" not in out


def test_a_path_stays_in_one_line_for_a_program(shown):
    path = f"/none/{'a' * 1500}.jpg"
    assert path in shown({"path": path})[0]


def test_what_the_path_says_is_said_once(shown):
    assert " id " not in shown({"path": "/none/1.jpg"})[0]
    # The image of such an index lies elsewhere than its id says; a text has no path.
    assert " id " in shown({"path": "/none/moved.jpg"})[0]
    assert " id " in shown({"path": None, "text": "a dog"})[0]


def test_without_hits_there_is_no_table(shown):
    assert shown()[0] == ""


def test_json_has_what_is_known_of_each_hit_and_dates_as_filters_take_them(shown):
    metadata = {"taken": dt.datetime(2024, 1, 31, 18, 30), "width": None, "tags": 3}
    hit = {"probability": 0.0, "duplicates": ("b",), "metadata": metadata}
    words = {"unknown_words": ("cat",), "inferred_words": ("hound",)}
    answer = json.loads(shown(hit, {}, json_=True, more=True, **words)[0])
    assert (answer["more"], answer["unknown_words"]) == (True, ["cat"])
    assert answer["inferred_words"] == ["hound"]
    first, second = answer["hits"]
    assert first["metadata"] == {"taken": "2024-01-31 18:30:00", "width": None, "tags": 3}
    assert (first["probability"], first["duplicates"]) == (0.0, ["b"])
    assert sorted(second) == ["id", "path", "rank", "score"]


def test_a_search_that_finds_less_than_was_asked_for_says_so(shown):
    assert shown({})[1] == ["asked for 2, found 1 of the 9 images in the index"]
    (nothing,) = shown(asked=replace(ASKED, at_least=0.5))[1]
    assert nothing.startswith("nothing like that here") and "0.5" in nothing
    # If nothing passed the filter, no probability was too small.
    filtered = replace(ASKED, at_least=0.5, where="width > 9")
    assert "width > 9" in shown(asked=filtered)[1][0]
    assert shown(asked=filtered, highest=0.4)[1][0].startswith("nothing like that here")
    words, lost = shown({"path": "/none/a.jpg"}, {}, unknown_words=("cat",))[1]
    assert words == "not known, left out: cat" and lost == "1 of 2 images are somewhere else"
    (inferred,) = shown({}, {}, inferred_words=("hound",))[1]
    assert "never trained" in inferred and "hound" in inferred
