"""Builds and changes a search index: `python -m pipelines.index`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.storage import local_folder

if TYPE_CHECKING:
    from tf_dpce.search.index.check_recall import Setting
    from tf_dpce.search.index.folder import FolderIndex
    from tf_dpce.search.interface import Index

_NAMED = 20  # ids that a message names


def run(
    out: str,
    embeddings: list[str] | None = None,
    factory: str | None = None,
    querybank: str | None = None,
    add: bool = False,
    delete: list[str] | None = None,
    metadata: Path | None = None,
    for_: Literal["images", "texts"] | None = None,
    nprobe: PositiveInt | None = None,
    check: Path | None = None,
    dim: PositiveInt | None = None,
) -> None:
    """Builds a search index over embeddings, or changes one.

    Args:
        out: folder of the index, or one in Milvus: http(s)://HOST:PORT[#NAME], or PATH.db[#NAME]
            for Milvus Lite.
        embeddings: folders that embed wrote; of an object store they are copied to this machine.
        factory: FAISS index beside the exact one, such as IVF1024,SQ8 or HNSW32 (default: by the
            number of items).
        querybank: folder that embed wrote, of typical queries: corrects for hubs by querybank
            normalisation (CSLS).
        add: add the embeddings to the index that is there; those of an id that is there replace
            it.
        delete: ids to remove from the index, or @FILE with one in each line.
        metadata: table of further columns, joined by its column path or id (CSV, TSV, JSON Lines
            or Parquet).
        for_: what --delete, --metadata and --check mean (default: images if there are any).
        nprobe: how many lists of an inverted file a query searches, or efSearch of HNSW.
        check: folder that embed wrote, of queries: measure recall and time of several settings.
        dim: how many numbers of each embedding to store, of a model that was trained with
            prefixes; queries are cut in the same way (default: all).
    """
    from tf_dpce.search.index.build import add_embeddings, build_index, open_index
    from tf_dpce.search.index.check_recall import check_recall
    from tf_dpce.search.index.metadata_table import MetadataTable

    building = bool(embeddings) and not add
    _check_options(bool(embeddings), add, factory or querybank or dim, delete)
    table = metadata and MetadataTable(metadata)
    folders = [local_folder(place) for place in embeddings or ()]
    if building:
        queries = None if querybank is None else local_folder(querybank)
        index = build_index(folders, out, factory, queries, table, for_, dim)
    else:
        index = open_index(out)
        if embeddings:
            add_embeddings(index, folders, table, described=for_)
    kind = for_ or ("images" if "images" in index.counts else "texts")
    if table and not embeddings:
        _folder_index(index, "--metadata").join(kind, table.join)
    if table:
        table.report()
    if delete:
        _delete(index, kind, _ids(delete))
    if nprobe:
        _folder_index(index, "--nprobe").set_effort(kind, nprobe)
    if check:
        _print_settings(check_recall(_folder_index(index, "--check"), check, kind))
    _print_counts(index, factory)
    say_files([out])


def _check_options(embeddings: bool, add: bool, built_with: object, delete: object) -> None:
    building, mistake = embeddings and not add, None
    if add and not embeddings:
        mistake = "--add needs --embeddings"
    elif built_with and not building:
        options = "--factory, --querybank and --dim"
        mistake = f"{options} need --embeddings without --add: build the index again"
    elif delete and building:
        mistake = "--delete goes without --embeddings, or with --add"
    if mistake:
        raise UserError("index.options", mistake)


def _folder_index(index: Index, option: str) -> FolderIndex:
    from tf_dpce.search.index.folder import FolderIndex

    if isinstance(index, FolderIndex):
        return index
    raise UserError("index.options", f"{option} needs an index in a folder")


def _delete(index: Index, kind: str, ids: list[str]) -> None:
    missing = index.missing(kind, ids)
    print(f"{index.delete(kind, ids):,} of {len(ids):,} ids were in the index and are deleted")
    if missing:
        named = ", ".join(shorten(name, 60) for name in missing[:_NAMED])
        more = ", ..." if len(missing) > _NAMED else ""
        logger.warning(f"not in the index, {len(missing):,}: {named}{more}")


def _ids(named: list[str]) -> list[str]:
    """Returns the ids, those of a file for each @FILE."""
    ids = []
    for name in named:
        file = Path(name.removeprefix("@"))
        # Names of files need not be UTF-8. Editors leave a mark at the beginning.
        lines = file.read_text("utf-8-sig", "surrogateescape") if name.startswith("@") else name
        ids += filter(None, lines.splitlines())
    return ids


def _print_counts(index: Index, factory: str | None) -> None:
    counts = " and ".join(f"{count:,} {kind}" for kind, count in index.counts.items())
    kind = f"{factory} index" if factory else "index"
    print(f"{kind} of {counts or 'nothing'}, {index.dimension} numbers each")
    for kind, queries in index.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")


def _print_settings(settings: list[Setting]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tf_dpce.search.index.check_recall import recommended

    table = Table(title="recall@10 against exact search", title_justify="left")
    for name in ("factory", "nprobe", "recall@10", "ms a query", ""):
        table.add_column(name, justify="left" if name in ("factory", "") else "right")
    best = recommended(settings)
    for setting in settings:
        effort = "" if setting.effort is None else str(setting.effort)
        marks = ["in force"] * setting.is_in_force + ["take this"] * (setting is best)
        figures = f"{100 * setting.recall:.1f} %", f"{1000 * setting.seconds:.2f}"
        table.add_row(setting.factory, effort, *figures, ", ".join(marks))
    Console().print(table)
    print(_advice(settings, best))


def _advice(settings: list[Setting], best: Setting) -> str:
    from tf_dpce.search.index.check_recall import EXACT
    from tf_dpce.search.index.factories import FLAT

    if best.is_in_force:
        return "the setting in force is right"
    effort = "" if best.effort is None else f" --nprobe {best.effort}"
    if effort and best.factory in [setting.factory for setting in settings if setting.is_in_force]:
        return f"set it: index --out ... {effort.strip()}"
    factory = FLAT if best.factory == EXACT else best.factory
    return f"build the index again: index --embeddings ... --out ... --factory {factory}{effort}"


build_parser, main = options_verb("index", run, {("add", "check"): False})


if __name__ == "__main__":
    sys.exit(main())
