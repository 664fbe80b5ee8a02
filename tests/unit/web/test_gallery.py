"""What the page shows is text, whatever names and captions say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from tests.unit.web.pages import Read
from tf_dpce.search.answer import Answer as Found
from tf_dpce.web.answers import Answer, Request
from tf_dpce.web.gallery import gallery_html

EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>&amp;{{value}}${alert(3)}\u202e"


def hit(**changes: object) -> SimpleNamespace:
    facts = {"name": "dog.jpg", "folder": "pets", "width": 640, "height": 480, "content": "ab" * 32}
    usual = {"rank": 1, "id": "pets/dog.jpg", "score": 0.5, "probability": 0.83, "duplicates": ()}
    return SimpleNamespace(**{**usual, "metadata": facts, **changes})


def test_foreign_text_is_no_html():
    facts = {"name": EVIL, "folder": EVIL, "content": EVIL, "width": 1, "height": 1}
    request = Request(q=EVIL, like=EVIL, where=EVIL)
    found = Found([hit(id=EVIL, metadata=facts)], (EVIL,), more=True, inferred_words=(EVIL,))
    page = Read(gallery_html(Answer(request, found)))
    harmless = Answer(Request("a", like="b", where="c"), replace(found, hits=[hit()]))
    harmless = Read(gallery_html(harmless))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert {name for _, attrs in page.tags for name in attrs} == {
        name for _, attrs in harmless.tags for name in attrs
    }
    assert page.text.count(EVIL) == 5, "name, folder, two kinds of words and what it is like"
    for link in page.links():
        assert link.startswith(("?", "thumbnail?")) and "<" not in link
    assert EVIL in Read(gallery_html(Answer(request, fault=EVIL))).text


def test_links_lead_to_similar_images_folders_and_pages():
    request = Request("a dog", where="width > 1", page=2)
    links = Read(gallery_html(Answer(request, Found([hit()], more=True)))).links()
    asked = [Request.parse(link) for link in links if link.startswith("?")]
    assert asked == [
        Request("a dog", where="width > 1", folder="pets"),
        # A new search, but among the same images.
        Request(like="pets/dog.jpg", where="width > 1"),
        Request("a dog", where="width > 1", page=1),
        Request("a dog", where="width > 1", page=3),
    ]


def test_each_state_says_what_it_is():
    likely, doubtful = hit(), Found([hit(probability=0.2)], highest=0.2)
    unsure = Found([], highest=0.42)
    for answer, said, unsaid in (
        (Answer(Request()), "Describe what the image shows", "Nothing found"),
        (Answer(Request("a")), "Nothing found. The index holds no image.", "filters"),
        (Answer(Request("a", where="c")), "No image passes the filters", "holds no image"),
        (Answer(Request("a", sure=90), unsure), "the highest probability is 42 %", "passes"),
        (Answer(Request("a", page=9)), "There are no further images", "holds no image"),
        (Answer(Request("a"), Found([likely], highest=0.83)), "83 %", "stands out"),
        (Answer(Request("a"), doubtful), "No image stands out", "Nothing"),
        (Answer(Request("a", page=2), doubtful), "20 %", "stands out"),
        # Without a calibration there is the score.
        (Answer(Request("a"), Found([hit(probability=None)])), "0.500", "stands out"),
        (Answer(Request("a"), Found([likely], ("zebra",))), "zebra", "Nothing found"),
        (Answer(Request("a"), fault="the model is away"), "the model is away", "Nothing found"),
    ):
        text = " ".join(Read(gallery_html(answer)).text.split())
        assert said in text and unsaid not in text
