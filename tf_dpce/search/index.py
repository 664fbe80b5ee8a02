"""Embeddings to an index: a FAISS index for each kind, with its records, published as a whole.

    INDEX/index.json               factory, model, dimension, counts, and the version in force
    INDEX/VERSION/images.faiss     inner products of unit vectors, which are cosines; after
                                   querybank normalisation less half of the item's hubness for
                                   queries of the other kind
    INDEX/VERSION/images.arrow     id, path and facts of each row (id and text for texts)

A new build is a new version beside the old one. Replacing `index.json`, by one rename, puts it in
force; only then is the old one removed. So there is an index at any moment, even if the process is
killed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.files import exclusive_lock, publish_folder, read_json, remove_stale, write_json
from tf_dpce.logging import logger, progress
from tf_dpce.search.embedding_store import (
    IMAGES,
    KINDS,
    TEXTS,
    StoredEmbeddings,
    StoreManifest,
    map_records,
    write_records,
)

DEFAULT_FACTORY = "Flat"

_MANIFEST = "index.json"
# k-means in FAISS uses no more than this many vectors a centroid.
_SAMPLES_PER_CENTROID = 256
_CODEBOOK = 256  # centroids of one sub-quantiser of a product quantiser
_QUERYBANK = 5_000  # queries of a querybank that are used, a sample of more
_QUERIES = {IMAGES: TEXTS, TEXTS: IMAGES}  # the kind of the queries for a kind


@dataclass(frozen=True)
class IndexManifest:
    """The content of `index.json`.

    Attributes:
        version: name of the folder that is in force.
        factory: FAISS's description of the index.
        model: digest of the model of the embeddings.
        dimension: D.
        counts: number of embeddings by kind.
        querybanks: by kind, the number of queries that its items were normalised with. Embeddings
            of such a kind have one more number, which is multiplied by 1 for a query of the other
            kind and by 0 for one of the same kind.
    """

    version: int
    factory: str
    model: str
    dimension: int
    counts: dict[str, int]
    querybanks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> IndexManifest:
        """Reads the manifest of an index.

        Raises:
            UserError: there is no index, or its manifest is damaged.
        """
        path = folder / _MANIFEST
        if not path.is_file():
            message = f"{folder} is not an index: build one with the verb index"
            raise UserError("index.missing", message, folder)
        try:
            return cls(**read_json(path))
        except TypeError:
            message = f"{path} is damaged: build the index again"
            raise UserError("index.damaged", message, path) from None

    def check(self, kind: str, top: int) -> None:
        """Makes sure that a query for the best `top` of `kind` can be answered.

        Raises:
            UserError: `top` is below 1, or the index does not hold `kind`.
        """
        if top < 1:
            message = f"the number of results must be at least 1, not {top}"
            raise UserError("search.top", message)
        if kind not in self.counts:
            message = f"the index holds no {kind}, only {', '.join(self.counts)}"
            raise UserError("search.kind", message)


def build_index(
    embeddings: Sequence[Path],
    out: Path,
    factory: str = DEFAULT_FACTORY,
    querybank: Path | None = None,
) -> IndexManifest:
    """Builds an index over finished embeddings, or replaces the one in `out`.

    FAISS learns centroids and codebooks from a sample drawn with a fixed seed. An inverted file is
    set to search the square root of its number of lists.

    Args:
        embeddings: folders that `embed` finished, of one model; each holds images, texts or both.
        out: folder of the index.
        factory: FAISS's description; "Flat" is exact, "IVF1024,Flat", "HNSW32" or
            "OPQ64,IVF1024,PQ64" trade exactness for speed and memory.
        querybank: a folder that `embed` finished with the same model, of captions or images, or
            both, like the queries to come. Half of the hubness of an image, its mean cosine with
            the nearest of these captions, is taken off its score for every caption (CSLS, see
            `evaluation.querybank`), and the same of a caption for every image. Queries of the own
            kind get plain cosines, and so does a kind for which the querybank has no queries. A
            product quantiser must then divide D + 1 numbers, or D again behind "OPQ64_D,".

    Raises:
        UserError: embeddings are missing, unfinished or of different models, or those of the
            querybank are; the querybank has no queries for what is indexed; `factory` is not
            known, does not fit the dimension, or needs more embeddings to learn from; `out` is
            something else.

    Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory
    """
    if re.search(r"(?<!\d)0+(?!\d)", factory):
        # FAISS would end the process over HNSW0 or PQ8x0.
        raise UserError("index.factory", f"no index {factory!r}: a number in it is 0")
    folders = embeddings if querybank is None else [*embeddings, querybank]
    stores = {folder: StoreManifest.load(folder) for folder in folders}
    first = stores[embeddings[0]]
    for folder, store in stores.items():
        if store.model != first.model:
            message = f"{embeddings[0]} and {folder} hold embeddings of two models: take one"
            raise UserError("index.two_models", message, folder)
    indexed = {folder: stores[folder] for folder in embeddings}
    found = {kind: StoredEmbeddings(indexed, kind) for kind in KINDS}
    found = {kind: items for kind, items in found.items() if items.rows}
    if not found:
        named = ", ".join(map(str, embeddings))
        raise UserError("index.no_embeddings", f"there is no embedding in {named}: run embed")
    queries = {}
    if querybank is not None:
        queries = _queries(querybank, stores[querybank], found)
    _refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out):
        remove_stale(out)
        version = 1 + max((int(item.name) for item in _versions(out)), default=0)
        with publish_folder(out / str(version)) as folder:
            for kind, items in found.items():
                _build_kind(folder, items, factory, queries.get(kind))
        manifest = IndexManifest(
            version=version,
            factory=factory,
            model=first.model,
            dimension=first.dimension,
            counts={kind: items.rows for kind, items in found.items()},
            querybanks={kind: len(rows) for kind, rows in queries.items()},
        )
        # From now on this version is in force.
        write_json(out / _MANIFEST, asdict(manifest))
        for item in _versions(out):
            if item.name != str(version):
                shutil.rmtree(item)
    return manifest


def _queries(folder: Path, store: StoreManifest, kinds: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the querybank of each kind that has one, float32 `[Q, D]`."""
    queries = {kind: StoredEmbeddings({folder: store}, _QUERIES[kind]) for kind in kinds}
    queries = {kind: items.sample(_QUERYBANK) for kind, items in queries.items() if items.rows}
    if not queries:
        missing = " and no ".join(_QUERIES[kind] for kind in kinds)
        message = f"the querybank {folder} holds no {missing}: embed some into it"
        raise UserError("index.querybank", message, folder)
    return queries


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("index.target", f"{out} is a file: give the folder of an index", out)
    known = re.compile(rf"[0-9]+|{re.escape(_MANIFEST)}|\..*\.tmp")
    if out.is_dir() and any(not known.fullmatch(item.name) for item in out.iterdir()):
        message = f"{out} holds other files than an index: give another --out"
        raise UserError("index.target", message, out)


def _versions(out: Path) -> list[Path]:
    return [item for item in out.iterdir() if item.name.isdigit()]


def _build_kind(
    folder: Path, items: StoredEmbeddings, factory: str, querybank: np.ndarray | None
) -> None:
    """Writes the index of one kind and its records."""
    import faiss

    dimension = items.dimension + (querybank is not None)
    what = f"{items.rows} {items.kind} of {dimension} numbers"
    rotation = re.search(r"OPQ\d+(?:_(\d+))?", factory)
    if rotation and items.rows < (least := int(rotation[1] or dimension)):
        # FAISS would write past the end of its memory.
        message = f"no index {factory!r} over {what}: OPQ needs at least {least} to learn from"
        raise UserError("index.too_few", message)

    def prepared(vectors: np.ndarray) -> np.ndarray:
        if querybank is not None:
            vectors = np.column_stack([vectors, -hubness(vectors, querybank) / 2])
        return np.ascontiguousarray(vectors, np.float32)

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        inverted = faiss.try_extract_index_ivf(index)
        if not index.is_trained:
            centroids = max(inverted.nlist if inverted else 0, _CODEBOOK)
            index.train(prepared(items.sample(_SAMPLES_PER_CENTROID * centroids)))
        if inverted:
            inverted.nprobe = max(1, round(inverted.nlist**0.5))
        with progress(f"indexed {items.kind}") as display:
            for vectors in items.arrays():
                index.add(prepared(vectors))
                display.update(index.ntotal, items.rows)
        faiss.write_index(index, str(folder / f"{items.kind}.faiss"))
    except RuntimeError as error:
        # FAISS's own words, without its C++ signatures.
        reason = re.sub(r"^Error in .* at \S+:\d+: ", "", str(error))
        if querybank is not None:
            reason += f"; one number is the querybank's: OPQM_{items.dimension} removes it for PQM"
        raise UserError("index.factory", f"no index {factory!r} over {what}: {reason}") from None
    records = folder / f"{items.kind}.arrow"
    if write_records(records, items.records, items.kind) != items.rows:
        message = f"the ids of the {items.kind} are incomplete: embed into another folder"
        raise UserError("embeddings.shard", message)
    # Of one folder the images differ.
    if items.kind == IMAGES and len({path.parent for path in items.records}) > 1:
        _warn_of_repeated_images(records)


def _warn_of_repeated_images(records: Path) -> None:
    import pyarrow.compute as pc

    paths = map_records(records).group_by("path").aggregate([([], "count_all")])
    repeated = paths.filter(pc.field("count_all") > 1)
    if len(repeated):
        logger.warning(
            f"{len(repeated):,} images are in several of the folders of embeddings and will be "
            f"found several times, such as {shorten(repeated['path'][0].as_py())}"
        )
