"""Searches for images or texts with a text or an image: `python -m pipelines.search`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pipelines._hits import Asked, check_sheet_file, show_answer
from pipelines._verb import options_verb
from tf_dpce.runtimes import AnyRuntime


def run(
    index: str,
    model: Path,
    text: str | None = None,
    image: Path | None = None,
    query: str | None = None,
    for_: Literal["images", "texts"] | None = None,
    top: int = 10,
    skip: int = 0,
    where: str | None = None,
    at_least: float | None = None,
    hide_duplicates: str | None = None,
    json_: bool = False,
    sheet: Path | None = None,
    images_from: Path | None = None,
    runtime: AnyRuntime = "tensorflow",
) -> None:
    """Searches for images or texts with a text or an image.

    Args:
        index: folder of an index, or address of its database.
        model: model that the index was built with.
        text: query: a text.
        image: query: a file of an image.
        query: query: a sum such as '"dog" - 2 * "ball" + image.jpg'.
        for_: what to find (default: images for a text, texts for an image if there are any).
        top: number of results.
        skip: number of results that are left out before the first one.
        where: only items that pass this filter, such as "folder = 'dogs' and width >= 640".
        at_least: only results of at least this probability, 0 to 1.
        hide_duplicates: hide duplicates, by content or by a cosine such as 0.97.
        json_: print results as JSON.
        sheet: draw the results as a contact sheet, FILE.png.
        images_from: folder to which the images were moved since they were embedded.
        runtime: what embeds the query; all but tensorflow must have been exported.
    """
    from tf_dpce.search.answer import Wanted
    from tf_dpce.search.index.build import open_index
    from tf_dpce.search.probabilities import find_calibration
    from tf_dpce.search.queries.query import Term, parse_query

    opened = open_index(index)
    terms = [Term(text=text, image=image)] if query is None else parse_query(query)
    images = [term.image for term in terms if term.image is not None]
    of_image = len(images) == len(terms) == 1
    kind = for_ or ("texts" if of_image and opened.counts.get("texts") else "images")
    choice = {
        "where": where,
        "at_least": at_least,
        "hide_duplicates": hide_duplicates,
        "skip": skip,
    }
    calibration = None if at_least is None else find_calibration(opened, model)
    Wanted.of(kind, top, **choice).check(opened, terms, calibration)
    check_sheet_file(sheet)

    from tf_dpce.search.queries.query_encoder import read_query_image
    from tf_dpce.search.searcher import Searcher

    for path in images:
        read_query_image(path)  # its faults are found before a model is loaded
    searcher = Searcher(opened, model, images_from, runtime)
    answer = searcher.search(terms, top, kind, **choice)
    lost = "not where they were embedded: --images-from FOLDER"
    if images_from:
        lost = f"neither where they were embedded nor below {images_from}"
    given = {"text": text, "image": image, "query": query}
    asked = Asked(
        query={name: str(value) for name, value in given.items() if value is not None},
        kind=kind,
        top=top,
        count=opened.counts[kind],
        at_least=at_least,
        where=None if skip else where,
        lost=lost,
    )
    show_answer(answer, asked, json_, sheet)


build_parser, main = options_verb("search", run, {("text", "image", "query"): True})

if __name__ == "__main__":
    sys.exit(main())
