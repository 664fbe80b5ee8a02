"""Answers a query, a text or an image, with ranked images or texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_dpce.errors import UserError, shorten
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.words import plain_words
from tf_dpce.search.answer import Hit
from tf_dpce.search.embedding_store import IMAGES, TEXTS
from tf_dpce.search.fingerprint import model_digest
from tf_dpce.search.index import open_index
from tf_dpce.search.interface import check_answerable
from tf_dpce.search.query_encoder import read_query_image

if TYPE_CHECKING:
    from tf_dpce.export.encoder import Encoder

_ASKED_WORDS = 256  # many times what a model reads, and a fraction of a second


class Searcher:
    """Answers queries from an index.

    The first query for images, or for texts, loads that part of the index into memory.

    Args:
        index: the folder that the verb `index` wrote.
        model: the model that the index was built with: a run folder, an exported version or a
            folder of versions; or what `tf_dpce.load` returned for it.
        images_from: folder to which the images were moved, if they are not where they were
            embedded any more. The path of an image is then that of its id below this folder, if
            there is such a file.

    Raises:
        UserError: there is no index or no model, the index was built with another model, or
            `images_from` is not a folder.

    Example:
        >>> searcher = tf_dpce.Searcher("index", "saved_models/scenes")
        >>> [hit.rank for hit in searcher.by_text("a dog on the grass", top=2)]
        [1, 2]
    """

    def __init__(
        self,
        index: Path | str,
        model: Path | str | Encoder,
        images_from: Path | str | None = None,
    ) -> None:
        folder = Path(index)
        self._images_from = images_from and Path(images_from)
        if self._images_from and not self._images_from.is_dir():
            message = f"{images_from} is not a folder: give the one that holds the images now"
            raise UserError("search.images_from", message, images_from)
        self.index = open_index(folder)
        if isinstance(model, (Path, str)):
            # Before the model is loaded, which takes seconds.
            if self.index.model != model_digest(Path(model)):
                raise UserError(
                    "search.other_model",
                    f"{folder} was built with another model than {model}: search with that model, "
                    "or embed and index again with this one",
                    folder,
                )
            from tf_dpce.export.encoder import load

            model = load(model)
        self.encoder = model
        if self.encoder.dimension != self.index.dimension:
            raise UserError(
                "search.other_model",
                f"{folder} holds embeddings of {self.index.dimension} numbers, but those of "
                f"the model have {self.encoder.dimension}: search with the model that made them",
                folder,
            )

    def by_text(self, query: str, top: int = 10, kind: str = IMAGES) -> list[Hit]:
        """Returns the best hits for a text.

        Args:
            query: the text.
            top: K, the number of hits; fewer are returned if the index has fewer items.
            kind: what to find, "images" or "texts".

        Raises:
            UserError: the query is empty or has no known word, `top` is below 1, or the index
                does not hold `kind`.
        """
        check_answerable(self.index.counts, kind, top)
        hits = self._nearest(TEXTS, query, f"the text '{shorten(query)}'", top, kind)
        unknown = self._unknown_words(query)
        return [replace(hit, unknown_words=unknown) for hit in hits]

    def by_image(self, image: str | Path | bytes, top: int = 10, kind: str = IMAGES) -> list[Hit]:
        """Returns the best hits for an image.

        Args:
            image: the path or the bytes of a file: JPEG, PNG, or what `to_png` turns into PNG.
            top: K, the number of hits; fewer are returned if the index has fewer items.
            kind: what to find, "images" or "texts".

        Raises:
            UserError: the image cannot be read or decoded, `top` is below 1, or the index does
                not hold `kind`.
        """
        check_answerable(self.index.counts, kind, top)
        if isinstance(image, bytes):
            return self._nearest(IMAGES, image, "the image", top, kind)
        return self._nearest(IMAGES, read_query_image(image), str(image), top, kind)

    def _nearest(
        self, query_kind: str, query: str | bytes, name: str, top: int, kind: str
    ) -> list[Hit]:
        vectors, statuses = self.encoder.encode_with_status(query_kind, [query])
        if statuses[0] != OK:
            reason = explain(int(statuses[0]), query)
            raise UserError("search.query", f"{name} cannot be used: {reason}")
        (found,) = self.index.search(kind, vectors, top, of=query_kind)
        return [
            self._where_it_is_now(_hit(rank, item.score, item.record))
            for rank, item in enumerate(found, 1)
        ]

    def _unknown_words(self, query: str) -> tuple[str, ...]:
        # Asked one by one, because neither an export nor a server gives its vocabulary away.
        words = list(dict.fromkeys(plain_words(query)))[:_ASKED_WORDS]
        _, statuses = self.encoder.encode_with_status(TEXTS, words)
        known = zip(words, statuses.tolist(), strict=True)
        return tuple(word for word, status in known if status == NO_KNOWN_WORD)

    def _where_it_is_now(self, hit: Hit) -> Hit:
        moved = self._images_from and hit.path and self._images_from / hit.id
        return replace(hit, path=str(moved)) if moved and moved.is_file() else hit


def _hit(rank: int, score: float, record: dict[str, Any]) -> Hit:
    return Hit(rank, record["id"], score, record.get("path"), record.get("text"))
