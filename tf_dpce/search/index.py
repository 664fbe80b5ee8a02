"""Embeddings to an index: one FAISS index a kind, with its metadata, published as a whole.

    INDEX/index.json               factory, model, dimension, counts, and the version in force
    INDEX/VERSION/images.faiss     inner product over unit vectors, so scores are cosines; with a
                                   querybank less half of the item's hubness, for queries of the
                                   other kind
    INDEX/VERSION/images.jsonl     id and path of each row, with a table of offsets

A new build is a new version beside the old one. Replacing `index.json`, one rename, puts it in
force; only then does the old one go. So there is an index at any moment, whoever is killed when.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.files import publish_folder, remove_stale, sole_writer
from tf_dpce.search.catalogue import CATALOGUE, DEFAULT_FACTORY, Catalogue
from tf_dpce.search.embedding_store import IMAGES, KINDS, TEXTS, Book
from tf_dpce.search.metadata import write_table

_SEED = 0
# k-means in FAISS looks at no more than this many vectors a centroid.
_SAMPLES_PER_CENTROID = 256
_CODEBOOK = 256  # centroids of one sub-quantiser of a product quantiser
_QUERYBANK = 5_000  # queries of a querybank that are used, a sample of more
_QUERIES = {IMAGES: TEXTS, TEXTS: IMAGES}  # what is asked for one kind by


def build_index(
    embeddings: Sequence[Path],
    out: Path,
    factory: str = DEFAULT_FACTORY,
    progress: Callable[[int, int], None] | None = None,
    querybank: Path | None = None,
) -> Catalogue:
    """Builds an index over finished embeddings, or replaces the one in `out`.

    What FAISS learns from (centroids, codebooks) is a sample drawn with a fixed seed. An
    inverted file is set to search the square root of its number of lists.

    Args:
        embeddings: folders that `embed` finished, of one model; each holds images, texts or both.
        out: folder of the index.
        factory: FAISS's description; "Flat" is exact, "IVF1024,Flat", "HNSW32" or
            "OPQ64,IVF1024,PQ64" trade exactness for speed and memory.
        progress: told (vectors added, vectors in all).
        querybank: a folder that `embed` finished with the same model, of captions or images, or
            both, like the queries to come. Half of the hubness of an image, its mean cosine with
            the nearest of these captions, is taken off its score for every caption (CSLS, see
            `evaluation.querybank`), and the same of a caption for every image. Queries of the own
            kind get plain cosines, and so does a kind for which the querybank has no queries. A
            product quantiser must then divide D + 1 numbers, or D again behind "OPQ64_D,".

    Raises:
        UserError: embeddings are missing, unfinished or of different models, the querybank's too,
            or it has no query for what is indexed; `factory` does not parse, does not fit D
            (D + 1 with a querybank), or needs more vectors to learn from; `out` is something else.

    Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory
    """
    if re.search(r"(?<!\d)0+(?!\d)", factory):
        # FAISS would end the process over HNSW0 or PQ8x0.
        raise UserError(f"no index {factory!r}: a number in it is 0")
    books = {folder: Book.load(folder) for folder in embeddings}
    banked = {} if querybank is None else {querybank: Book.load(querybank)}
    model, dimension = _same_model(books)
    _check_querybank(banked, model, dimension)
    shards = {kind: [*_shards(books, kind)] for kind in KINDS}
    counts = {kind: sum(shard.rows for shard in shards[kind]) for kind in KINDS if shards[kind]}
    if not counts:
        raise UserError(f"there is no vector in {', '.join(map(str, embeddings))}: run embed first")
    queries = _querybank(banked, counts)
    _refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    report = _Report(sum(counts.values()), progress)
    with sole_writer(out):
        remove_stale(out)
        version = 1 + max((int(item.name) for item in _versions(out)), default=0)
        with publish_folder(out / str(version)) as folder:
            for kind in counts:
                _build_kind(folder, kind, shards[kind], factory, queries.get(kind), report)
        asked = {kind: len(rows) for kind, rows in queries.items()}
        catalogue = Catalogue(version, factory, model, dimension, counts, asked)
        catalogue.save(out)
        for item in _versions(out):
            if item.name != str(version):
                shutil.rmtree(item)
    return catalogue


@dataclass(frozen=True)
class _Shard:
    """A file of vectors that has at least one, and the records beside it."""

    vectors: Path
    records: Path
    rows: int
    dimension: int

    def load(self) -> np.ndarray:
        """Maps the vectors, float32 [rows, D], without reading them."""
        try:
            vectors = np.load(self.vectors, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, FileNotFoundError):
            vectors = None
        if vectors is None or vectors.shape != (self.rows, self.dimension):
            raise UserError(f"{self.vectors} is missing or damaged: embed into another folder")
        return vectors


@dataclass
class _Report:
    total: int
    progress: Callable[[int, int], None] | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)


def _same_model(books: dict[Path, Book]) -> tuple[str, int]:
    (first, book), *others = books.items()
    for folder, other in others:
        if (other.model, other.dimension) != (book.model, book.dimension):
            raise UserError(f"{first} and {folder} hold vectors of two models: index one at a time")
    return book.model, book.dimension


def _check_querybank(books: dict[Path, Book], model: str, dimension: int) -> None:
    for folder, book in books.items():
        if (book.model, book.dimension) != (model, dimension):
            raise UserError(
                f"the querybank {folder} is of another model than the index: embed its queries "
                "with that model"
            )


def _shards(books: dict[Path, Book], kind: str) -> Iterator[_Shard]:
    for folder, book in books.items():
        done = book.kinds.get(kind)
        if done is None:
            continue
        if not done.complete:
            state = f"{done.taken} of {done.total}"
            raise UserError(f"{folder} holds {state} {kind}: run the same embed again to finish")
        for shard in done.shards:
            if shard.embedded:
                paths = (folder / f"{shard.name}.npy", folder / f"{shard.name}.jsonl")
                yield _Shard(*paths, shard.embedded, book.dimension)


def _querybank(books: dict[Path, Book], counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Returns by the kinds that are indexed what will ask for them, float32 [Q, D]."""
    found = {}
    for kind in counts if books else ():
        shards = [*_shards(books, _QUERIES[kind])]
        rows = sum(shard.rows for shard in shards)
        if rows:
            found[kind] = _drawn(shards, rows, min(rows, _QUERYBANK))
    if books and not found:
        lacking = " and no ".join(f"{_QUERIES[kind]}, by which {kind} are found" for kind in counts)
        raise UserError(f"the querybank {next(iter(books))} holds no {lacking}: embed some into it")
    return found


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give the folder of an index")
    known = re.compile(rf"[0-9]+|{re.escape(CATALOGUE)}|\..*\.tmp")
    if out.is_dir() and any(not known.fullmatch(item.name) for item in out.iterdir()):
        raise UserError(f"{out} holds other files than an index: give another --out")


def _versions(out: Path) -> list[Path]:
    return [item for item in out.iterdir() if item.name.isdigit()]


def _build_kind(
    folder: Path,
    kind: str,
    shards: list[_Shard],
    factory: str,
    querybank: np.ndarray | None,
    report: _Report,
) -> None:
    import faiss

    rows = sum(shard.rows for shard in shards)
    dimension = shards[0].dimension + (querybank is not None)
    what = f"{rows} {kind} of {dimension} numbers"
    turned = re.search(r"OPQ\d+(?:_(\d+))?", factory)
    if turned and rows < (least := int(turned[1] or dimension)):
        # FAISS would write past the end of its memory.
        raise UserError(f"no index {factory!r} over {what}: OPQ learns from {least} at least")

    def ready(vectors: np.ndarray) -> np.ndarray:
        if querybank is not None:
            vectors = np.column_stack([vectors, -hubness(vectors, querybank) / 2])
        return np.ascontiguousarray(vectors, np.float32)

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        inverted = faiss.try_extract_index_ivf(index)
        if not index.is_trained:
            index.train(ready(_sample(shards, rows, inverted.nlist if inverted else 0)))
        if inverted:
            inverted.nprobe = max(1, round(inverted.nlist**0.5))
        for shard in shards:
            index.add(ready(shard.load()))
            report.add(shard.rows)
        faiss.write_index(index, str(folder / f"{kind}.faiss"))
    except RuntimeError as error:
        remedy = "" if querybank is None else _turned(factory, dimension - 1)
        raise UserError(f"no index {factory!r} over {what}: {_reason(error)}{remedy}") from None
    if write_table(folder / f"{kind}.jsonl", [shard.records for shard in shards]) != rows:
        raise UserError(f"the ids of the {kind} are incomplete: embed into another folder")


def _sample(shards: list[_Shard], rows: int, lists: int) -> np.ndarray:
    """Returns vectors to learn from, all or as many as FAISS would look at, float32 [M, D]."""
    return _drawn(shards, rows, min(rows, _SAMPLES_PER_CENTROID * max(lists, _CODEBOOK)))


def _drawn(shards: list[_Shard], rows: int, size: int) -> np.ndarray:
    """Returns `size` of all vectors, drawn with a fixed seed, in their order, float32 [size, D]."""
    chosen = np.sort(np.random.default_rng(_SEED).choice(rows, size, replace=False))
    ends = np.cumsum([shard.rows for shard in shards])
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [shard.rows for shard in shards]
    return np.concatenate(
        [
            shard.load()[part - start]
            for shard, part, start in zip(shards, parts, starts, strict=True)
        ]
    )


def _turned(factory: str, dimension: int) -> str:
    """Returns a remedy if a product quantiser does not divide D + 1 numbers."""
    parts = re.search(r"\bPQ(\d+)", factory)
    if not parts or (dimension + 1) % int(parts[1]) == 0 or re.search(r"_\d", factory):
        return ""
    first = f"OPQ{parts[1]}_{dimension}"
    return f"; one number is the querybank's: begin with {first}, which makes {dimension} of them"


def _reason(error: RuntimeError) -> str:
    """Returns FAISS's own words without its C++ signatures."""
    return re.sub(r"^Error in .* at \S+:\d+: ", "", str(error))
