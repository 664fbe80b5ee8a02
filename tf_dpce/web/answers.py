"""A request to the page, as its address says it, and the answer to it."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from threading import Lock
from urllib.parse import parse_qsl, urlencode

from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.search.answer import Answer as Found
from tf_dpce.search.queries.filters import Filter
from tf_dpce.search.queries.query import Term, parse_query
from tf_dpce.search.searcher import Searcher

PAGE_SIZE = 24

_LONGEST_LINK = 16 * 2**10
_LAST_PAGE = 500
_QUERY_IMAGES_BYTES = 256 * 2**20
_SEE_LOG = "whoever runs the page finds the reason in its log"


@dataclass(frozen=True)
class Request:
    """What somebody asks for. The page's address holds it, so that a link repeats a search.

    Attributes:
        q: the query: a text, or a combination such as `"dog" - "ball"`.
        image: name of an image that was sent to the page, see `QueryImages`.
        like: id of an indexed image to which the hits shall be similar.
        where: a filter, see `Filter`.
        folder: the folder of the hits, and all below it.
        taken_from: first day on which a hit was taken, such as 2024-01-31.
        taken_to: last day.
        sure: least probability of a hit, in percent.
        page: number of the page of hits, from 1.
    """

    q: str = ""
    image: str = ""
    like: str = ""
    where: str = ""
    folder: str = ""
    taken_from: str = ""
    taken_to: str = ""
    sure: int = 0
    page: int = 1

    @classmethod
    def parse(cls, link: str) -> Request:
        """Reads the part of an address behind its question mark.

        Unknown names are left out, and so are numbers that cannot be.

        Raises:
            UserError: the address is too long.

        Example:
            >>> Request.parse("?q=two+dogs&page=2")
            Request(q='two dogs', image='', like='', where='', folder='', ..., page=2)
        """
        if len(link) > _LONGEST_LINK:
            raise UserError("web.link", "the search is too long: shorten the query or the filter")
        pairs = dict(parse_qsl(link.removeprefix("?")))
        texts = {each.name: pairs.get(each.name, "").strip() for each in fields(cls)}
        sure, page = (_number(texts.pop(name)) for name in ("sure", "page"))
        return cls(**texts, sure=min(sure, 100), page=min(max(page, 1), _LAST_PAGE))

    def link(self, **changes: str | int) -> str:
        """Returns the address of this request, or of one that differs in some attributes.

        Example:
            >>> Request("two dogs", page=3).link(page=4)
            '?q=two+dogs&page=4'
        """
        changed = replace(self, **changes)
        values = {each.name: getattr(changed, each.name) for each in fields(self)}
        usual = {each.name: each.default for each in fields(self)}
        return "?" + urlencode({k: v for k, v in values.items() if v != usual[k]})

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for; a filter alone is no query."""
        return not (self.q or self.image or self.like)

    @property
    def is_filtered(self) -> bool:
        """Whether some images cannot be hits."""
        return bool(self.where or self.folder or self.taken_from or self.taken_to or self.sure)

    @property
    def condition(self) -> str:
        """All filters as one expression; empty if there is none."""
        simple = (("taken >=", self.taken_from), ("taken <=", self.taken_to))
        parts = [f"({self.where})"] if self.where else []
        parts += [f"{column} {_quoted(value)}" for column, value in simple if value]
        if folder := self.folder.strip("/"):
            # "0" follows "/"; unlike that of `like`, this text may hold any sign.
            texts = (_quoted(text) for text in (folder, folder + "/", folder + "0"))
            parts.append("(folder = {} or folder >= {} and folder < {})".format(*texts))
        return " and ".join(parts)


@dataclass(frozen=True)
class Answer:
    """What the page shows.

    Attributes:
        request: what was asked for.
        found: what the search found for this page.
        seconds: how long the search took.
        fault: why there is no answer, for a person.
    """

    request: Request
    found: Found = Found([])
    seconds: float = 0.0
    fault: str = ""


class QueryImages:
    """Images that visitors sent: in memory only, the latest ones, by a digest of their bytes."""

    def __init__(self, most_bytes: int = _QUERY_IMAGES_BYTES) -> None:
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._most_bytes, self._bytes, self._lock = most_bytes, 0, Lock()

    def add(self, contents: bytes) -> str:
        """Stores the bytes of an image and returns the name by which a request asks for it."""
        name = hashlib.sha256(contents).hexdigest()
        with self._lock:
            if name not in self._contents:
                self._contents[name] = contents
                self._bytes += len(contents)
            self._contents.move_to_end(name)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._contents.popitem(last=False)[1])
        return name

    def __getitem__(self, name: str) -> bytes:
        """Returns the bytes of an image.

        Raises:
            UserError: it was never there, or made room for others.
        """
        with self._lock:
            if name not in self._contents:
                message = "the image of this search is no longer here: drop it again"
                raise UserError("web.query_image", message)
            self._contents.move_to_end(name)
            return self._contents[name]


class Answers:
    """Answers requests from an index; threads may share it."""

    def __init__(self, searcher: Searcher, images: QueryImages) -> None:
        self._searcher, self._images = searcher, images

    def answer(self, link: str) -> Answer:
        """Answers the request that an address holds. No fault of a request is an error."""
        request = Request()
        try:
            request = Request.parse(link)
            return Answer(request) if request.is_empty else self._search(request)
        except UserError as error:
            return Answer(request, fault=_explained(error))
        except Exception:
            logger.exception("a search of the page failed")
            return Answer(request, fault=f"the search failed: {_SEE_LOG}")

    def _search(self, request: Request) -> Answer:
        if request.where:
            # By itself, so that no parenthesis of it closes the one around it.
            Filter.parse(request.where)
        began = time.perf_counter()
        found = self._searcher.search(
            list(self._terms(request)),
            top=PAGE_SIZE,
            kind="images",
            where=request.condition or None,
            at_least=request.sure / 100 if request.sure else None,
            hide_duplicates="content" if self._knows_contents() else None,
            skip=(request.page - 1) * PAGE_SIZE,
        )
        return Answer(request, found, seconds=time.perf_counter() - began)

    def _knows_contents(self) -> bool:
        return "content" in self._searcher.index.columns("images").names

    def _terms(self, request: Request) -> Iterable[Term]:
        for term in parse_query(request.q) if request.q else ():
            # A visitor must not make this machine read its files: a name is that of an indexed one.
            yield term if term.image is None else Term(term.weight, id=str(term.image))
        if request.image:
            yield Term(1.0, image=self._images[request.image])
        if request.like:
            yield Term(1.0, id=request.like)


def _explained(error: UserError) -> str:
    """Returns the message of an error for a visitor, who learns no path of this machine."""
    area = error.code.split(".")[0]
    if area in ("search", "web") and error.path is None:
        return error.message
    if error.code == "index.id":
        return f"{error.message}: drop the image here, or describe it in words"
    logger.warning(f"a search of the page failed: {error.message} [{error.code}]")
    if area in ("serving", "client"):
        return "the model does not answer: try again in a moment"
    return f"the search failed ({error.code}): {_SEE_LOG}"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
