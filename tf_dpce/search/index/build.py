"""Opens an index by its place, and builds one over embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError, shorten
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, QUERY_KIND
from tf_dpce.logging import logger, tracked
from tf_dpce.search.embedding.store import (
    IMAGES,
    KINDS,
    TEXTS,
    StoredEmbeddings,
    StoreManifest,
    joined_columns,
    read_records,
)
from tf_dpce.search.index.factories import check_factory
from tf_dpce.search.index.folder import FolderIndex
from tf_dpce.search.index.manifest import IndexManifest, KindEntry, refuse_foreign
from tf_dpce.search.index.writer import Batch, writing
from tf_dpce.search.interface import Index
from tf_dpce.search.milvus.connection import is_milvus
from tf_dpce.storage import open_folder

if TYPE_CHECKING:
    from tf_dpce.search.index.metadata_table import MetadataTable
    from tf_dpce.search.milvus.index import MilvusIndex

_QUERYBANK = 5_000  # queries of a querybank that are used, a sample of more


def open_index(target: Path | str) -> Index:
    """Opens an index.

    Args:
        target: the folder of an index, or one in Milvus: `http(s)://HOST:PORT[#NAME]`, or the path
            of a database of Milvus Lite, `PATH.db[#NAME]`.

    Returns:
        The index, whose methods are those of `Index`.

    Raises:
        UserError: there is no index, or it is damaged; or Milvus does not answer.

    Example:
        >>> open_index("index").counts
        {'images': 50}
    """
    if is_milvus(target):
        from tf_dpce.search.milvus.index import MilvusIndex

        return MilvusIndex.open(target)
    return FolderIndex(Path(target))


def build_index(
    embeddings: Sequence[Path],
    out: Path | str,
    factory: str | None = None,
    querybank: Path | None = None,
    metadata: MetadataTable | None = None,
    described: str | None = None,
    dimension: int | None = None,
) -> FolderIndex | MilvusIndex:
    """Builds an index over finished embeddings, or replaces the one in `out`.

    Args:
        embeddings: folders that `embed` finished, of one model; each holds images, texts or both.
        out: folder of the index, or one in Milvus, see `open_index`. Milvus has no `factory`.
        factory: FAISS's description of the approximate index beside the exact one, such as
            "IVF1024,SQ8", "HNSW32" or "OPQ64,IVF1024,PQ64"; "Flat" or "SQfp16" for none. By
            default there is one, an inverted file, from 200,000 items.
        querybank: a folder that `embed` finished with the same model, of captions or images, or
            both, like the queries to come. Half of the hubness of an image, its mean cosine with
            the nearest of these captions, is taken off its score for every caption (CSLS, see
            `evaluation.querybank`), and the same of a caption for every image. Queries of the own
            kind get plain cosines, and so does a kind for which the querybank has no queries. A
            product quantiser must then divide D + 1 numbers, or D again behind "OPQ64_D,".
        metadata: further columns of items of one kind.
        described: this kind; None for images, or texts if there are no images.
        dimension: how many numbers of each embedding are taken; queries are cut in the same way,
            and hits have no probabilities, which are those of whole embeddings. All by default.

    Returns:
        The index, opened.

    Raises:
        UserError: embeddings are missing, unfinished or of different models, or those of the
            querybank are; the querybank has no queries for what is indexed; two folders have
            different items with one id; `factory` is not known, does not fit the dimension, or
            needs more embeddings to learn from; `out` is something else.

    Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory

    Example:
        >>> build_index([Path("embeddings")], "index").counts
        {'images': 50}
    """
    folders = embeddings if querybank is None else [*embeddings, querybank]
    stores = read_stores(folders)
    first = stores[embeddings[0]]
    if is_milvus(out) and (factory or dimension):
        option = "--factory" if factory else "--dim"
        raise UserError("index.factory", f"Milvus chooses its own index: leave out {option}")
    whole = first.dimension
    width = _checked_width(embeddings[0], whole, dimension)
    check_factory(factory, width, querybank is not None)
    found = _items({folder: stores[folder] for folder in embeddings}, width)
    queries = {}
    if querybank is not None:
        queries = _queries(querybank, stores[querybank], found, width)
    batches = _all_batches(found, metadata, described)
    if len(embeddings) > 1:
        batches = {kind: _different(kind, items) for kind, items in batches.items()}
    if is_milvus(out):
        from tf_dpce.search.milvus.index import MilvusIndex

        return MilvusIndex.build(out, first.model, width, batches, queries)
    out = Path(out)
    refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    about = IndexManifest(first.model, width, factory, whole=whole if width < whole else None)
    with writing(out, about) as writer:
        for kind, items in batches.items():
            if kind in queries:
                file = writer.store_array(kind, queries[kind])
                writer.set_entry(kind, KindEntry(querybank=file, queries=len(queries[kind])))
            writer.add(kind, items, whole=True)
        writer.store_calibration(None if width < whole else _calibration(embeddings))
        writer.commit()
    return FolderIndex(out)


def _checked_width(folder: Path, stored: int, dimension: int | None) -> int:
    if dimension is None or dimension <= stored:
        return dimension or stored
    message = f"{folder} holds embeddings of {stored} numbers: set no larger --dim"
    raise UserError("index.dim", message, folder)


def _calibration(embeddings: Iterable[Path | str]) -> bytes | None:
    """Returns the calibration of the model, if `embed` found one."""
    folders = map(open_folder, embeddings)
    folder = next((each for each in folders if CALIBRATION_FILE in each.names()), None)
    return folder and folder.read([CALIBRATION_FILE])[0]


def add_embeddings(
    index: Index,
    embeddings: Sequence[Path],
    metadata: MetadataTable | None = None,
    described: str | None = None,
) -> None:
    """Adds finished embeddings to an index; those of an id that is there replace it.

    Args:
        index: the index; one in a folder has all of them at once, or none.
        embeddings: folders that `embed` finished with the model of the index.
        metadata: further columns of items of one kind.
        described: this kind; None for images, or texts if there are no images.

    Raises:
        UserError: embeddings are missing, unfinished or of another model.
    """
    stores = read_stores(embeddings, index)
    # An index of cut embeddings takes as many numbers of those to come.
    items = _all_batches(_items(stores, index.dimension), metadata, described)
    before = index.counts
    if isinstance(index, FolderIndex):
        index.add_all(items)
    else:
        for kind, batches in items.items():
            for records, vectors in batches:
                index.add(kind, records, vectors)
    if metadata is None:
        _say_missing_columns(index, before)


def _say_missing_columns(index: Index, before: Mapping[str, int]) -> None:
    """Logs which columns of an index have no value in the items that are new."""
    for kind, count in index.counts.items():
        new, joined = count - before.get(kind, 0), joined_columns(kind, index.columns(kind).names)
        if joined and new > 0:
            named = shorten(", ".join(joined))
            logger.warning(f"{new:,} {kind} are new and have no {named}: use --metadata again")


def read_stores(folders: Sequence[Path], index: Index | None = None) -> dict[Path, StoreManifest]:
    """Returns the manifests of folders of embeddings, by folder.

    Args:
        folders: one or more.
        index: an index of the same model, if there is one.

    Raises:
        UserError: a folder holds no embeddings, or two are of different models.
    """
    stores = {folder: StoreManifest.load(folder) for folder in folders}
    other, model = folders[0], stores[folders[0]].model
    if index:
        other, model = index.name, index.model
    for folder, store in stores.items():
        if store.model != model:
            remedy = "embed with the index's own" if index else "take one"
            message = f"{other} and {folder} hold embeddings of two models: {remedy}"
            raise UserError("index.two_models", message, folder)
    return stores


def _items(stores: Mapping[Path, StoreManifest], width: int) -> dict[str, StoredEmbeddings]:
    """Returns the embeddings of each kind that there is, cut to a width."""
    found = {kind: StoredEmbeddings(stores, kind, width) for kind in KINDS}
    found = {kind: items for kind, items in found.items() if items.rows}
    if not found:
        named = ", ".join(map(str, stores))
        raise UserError("index.no_embeddings", f"there is no embedding in {named}: run embed")
    return found


def _all_batches(
    found: Mapping[str, StoredEmbeddings], metadata: MetadataTable | None, described: str | None
) -> dict[str, Iterator[Batch]]:
    """Returns the records and embeddings of each kind, those of one with metadata."""
    described = described or (IMAGES if IMAGES in found else TEXTS)
    return {
        kind: _batches(items, metadata if kind == described else None)
        for kind, items in found.items()
    }


def _batches(items: StoredEmbeddings, metadata: MetadataTable | None) -> Iterator[Batch]:
    """Yields the records and embeddings of each shard."""
    shards = zip(items.records, items.arrays(), strict=True)
    what = f"indexed {items.kind}"
    for path, vectors in tracked(shards, what, items.rows, False, size=lambda shard: len(shard[1])):
        records = _records(path, items.kind, len(vectors))
        yield metadata.join(records) if metadata else records, vectors


def _records(path: Path, kind: str, rows: int) -> pa.Table:
    with suppress(pa.ArrowException, FileNotFoundError):
        records = read_records(path, kind)
        if len(records) == rows and not records["id"].null_count:
            return records
    message = f"{path} is missing or damaged: embed into another folder"
    raise UserError("embeddings.shard", message, path)


def _queries(
    folder: Path, store: StoreManifest, kinds: Iterable[str], width: int
) -> dict[str, np.ndarray]:
    """Returns the querybank of each kind that has one, float32 `[Q, width]`."""
    stores = {folder: store}
    queries = {kind: StoredEmbeddings(stores, QUERY_KIND[kind], width) for kind in kinds}
    queries = {kind: items.sample(_QUERYBANK) for kind, items in queries.items() if items.rows}
    if not queries:
        missing = " and no ".join(QUERY_KIND[kind] for kind in kinds)
        message = f"the querybank {folder} holds no {missing}: embed some into it"
        raise UserError("index.querybank", message, folder)
    return queries


def _different(kind: str, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Refuses different items with one id, and warns of images that have several."""
    content = "path" if kind == IMAGES else "text"
    seen = []
    for records, vectors in batches:
        seen.append(records.select(["id", content]))
        yield records, vectors
    items = pa.concat_tables(seen)
    items = items.group_by(["id", content]).aggregate([])
    several = _repeated(items, "id")
    if len(several):
        named = shorten(several["id"][0].as_py())
        message = (
            f"{len(several):,} ids stand for different {kind} in several of the folders, such as "
            f"{named}: embed all into one folder"
        )
        raise UserError("index.repeated_ids", message)
    if kind == IMAGES and len(several := _repeated(items, "path")):
        logger.warning(
            f"{len(several):,} images are in several of the folders of embeddings and will be "
            f"found several times, such as {shorten(several['path'][0].as_py())}"
        )


def _repeated(items: pa.Table, column: str) -> pa.Table:
    import pyarrow.compute as pc

    counts = items.group_by(column).aggregate([([], "count_all")])
    return counts.filter(pc.field("count_all") > 1)
