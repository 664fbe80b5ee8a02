"""A teacher's embeddings: found by id in whatever file, and drawn with the batches of training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.errors import raises
from tests.pages import blocks
from tests.scenes import SIZE, copy_data
from tests.unit.search.plain import DIMENSION, MODEL, PlainEncoder, vector
from tf_dpce.config import ImageConfig, TextConfig
from tf_dpce.data import teacher, teacher_files
from tf_dpce.data.caption_table import captions_of_instances, encode_captions
from tf_dpce.data.feature_cache import FeatureCache
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import training_batches
from tf_dpce.data.teacher import Teacher, load_teacher
from tf_dpce.data.teacher_files import read_teacher, teacher_digest
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images, find_texts
from tf_dpce.search.embedding.records import Record, records
from tf_dpce.search.embedding.store import KINDS

PLACES, IMAGES = 40, 48
HALF = 1e-3  # what half precision keeps of a number up to 1


@pytest.fixture(scope="module")
def embedded(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `embed` writes of all prepared images and captions."""
    folder = tmp_path_factory.mktemp("teacher") / "embedded"
    for inputs in (find_images([str(scenes)]), find_texts([str(scenes)])):
        embed(PlainEncoder(), inputs, folder, MODEL, shard_size=50)
    return folder


@pytest.fixture(scope="module")
def train(scenes: Path) -> list[Record]:
    """The training images with their captions, in the order of the split."""
    return [r for shard in sorted(scenes.glob("train-*")) for r in records(str(shard))]


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    return copy_data(scenes, tmp_path / "data" / "mine")


@pytest.fixture
def rows(train: list[Record]) -> dict[str, np.ndarray]:
    """The embedding of each image, of another length than 1, and of each caption, by its id."""
    images = {r.image_id: 3 * vector(r.image) for r in train}
    return images | {
        f"{r.image_id}#{k}": vector(c) for r in train for k, c in enumerate(r.captions)
    }


def write(path: Path, rows: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, id=np.array(list(rows)), embedding=np.stack(list(rows.values())))
    else:
        columns = {"id": list(rows), "embedding": list(map(list, rows.values()))}
        parquet.write_table(pa.table(columns), path, row_group_size=7)
    return path


def load(path: Path, data: Path) -> Teacher:
    return load_teacher(path, data, teacher_digest(path))


# --- files ----------------------------------------------------------------------------------------


def test_each_kind_of_file_gives_unit_vectors_in_the_order_of_the_split(
    data: Path, embedded: Path, train: list[Record], rows: dict, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(teacher_files, "_ROWS", 10)
    # In another order, among those of other images.
    others = [("other.jpg", np.ones(DIMENSION)), ("zzz#0", vector("x"))]
    mixed = dict([others[0], *list(rows.items())[::-1], others[1]])
    expected = [vector(r.image) for r in train]
    expected += [vector(caption) for r in train for caption in r.captions]
    files = [write(tmp_path / name, mixed) for name in ("t.parquet", "t.npz")]
    for path in (embedded, *files):
        found = load(path, data).embeddings
        np.testing.assert_allclose(found, expected, atol=HALF)
        assert found.dtype == np.float16 and found.filename is not None
    assert len(list((data / "features").iterdir())) == 3
    # The next training maps what this one wrote.
    monkeypatch.setattr(teacher, "_write", Mock(side_effect=AssertionError))
    load(embedded, data)


def test_the_script_of_the_page_on_training_makes_one(
    data: Path, embedded: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    encode = {f"encode_{kind}": lambda rows: np.stack(list(map(vector, rows))) for kind in KINDS}
    (script,) = blocks("docs/training.md", "python")
    exec(script, encode)
    found, expected = (load(path, data).embeddings for path in (Path("teacher.npz"), embedded))
    np.testing.assert_array_equal(found, expected)


def test_what_a_teacher_lacks_the_other_modality_represents(data: Path, rows: dict, tmp_path: Path):
    for captions in (False, True):
        some = {name: v for name, v in rows.items() if ("#" in name) == captions}
        found = load(write(tmp_path / f"{captions}.npz", some), data)
        (batch,) = found.batches(IndexShuffle(0, IMAGES, 8), 0, 1, False).as_numpy_iterator()
        np.testing.assert_array_equal(batch[:, 0], batch[:, 1])
        np.testing.assert_allclose(np.linalg.norm(batch, axis=2), 1, atol=HALF)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("of_instances", [False, True])
def test_rows_are_those_of_the_batches_of_every_pipeline(
    data: Path, embedded: Path, train: list[Record], of_instances: bool
):
    tokenizer = CaptionTokenizer(read_vocabulary(data / "vocabulary.txt"), PLACES, lowercase=True)
    table = encode_captions(data, "train", tokenizer)
    pool = captions_of_instances(table) if of_instances else None
    text, image = TextConfig(max_length=PLACES, shift=False), ImageConfig("small", SIZE)
    # The second half of each batch, as the second of two workers reads it.
    order = IndexShuffle(3, IMAGES, 8, part=1, parts=2)
    taught = list(load(embedded, data).batches(order, 2, 9, of_instances).as_numpy_iterator())
    features = FeatureCache(np.zeros((IMAGES, 1, 1), np.float16), table)
    cached = features.training_batches(text, order, 2, 9, pool)
    shards = training_batches(data, tokenizer, image, text, order, 2, 9, pool)
    for batch, vectors in zip([*cached, *shards], taught * 2, strict=True):
        assert vectors.shape == (4, 2, DIMENSION) and vectors.dtype == np.float32
        for instance, ids, pair in zip(batch["instance"], batch["text"], vectors, strict=True):
            (owner,) = np.flatnonzero(table.instances == instance)
            np.testing.assert_allclose(pair[0], vector(train[owner].image), atol=HALF)
            captions = train[owner].captions
            (drawn,) = [c for c in captions if np.abs(vector(c) - pair[1]).max() < HALF]
            np.testing.assert_array_equal(tokenizer([drawn])[0], ids)
    assert len({tuple(vectors[:, 1].ravel()) for vectors in taught}) == 7


# --- what is refused ------------------------------------------------------------------------------


def test_embeddings_of_other_data_or_that_cannot_be_compared_are_refused(
    data: Path, train: list[Record], rows: dict, tmp_path: Path
):
    image, caption = train[2].image_id, f"{train[1].image_id}#1"
    lost = {name: v for name, v in rows.items() if name not in (image, train[9].image_id)}
    for number, (some, code, said) in enumerate(
        (
            ({f"x/{name}": v for name, v in rows.items()}, "teacher.ids", train[0].image_id),
            (lost, "teacher.ids", f"2 of {IMAGES} training images, the first is {image}"),
            ({n: v for n, v in rows.items() if n != caption}, "teacher.ids", caption),
            ({n: v[:9] if "#" in n else v for n, v in rows.items()}, "teacher.width", "9"),
            (rows | {caption: np.full(DIMENSION, np.nan)}, "teacher.not_finite", caption),
            (rows | {caption: np.zeros(DIMENSION)}, "teacher.not_finite", caption),
        )
    ):
        path = write(tmp_path / f"{number}.parquet", some)
        with raises(code, path=path) as caught:
            load(path, data)
        assert said in str(caught.value)
    twice = tmp_path / "twice.npz"
    np.savez(twice, id=[*rows, image], embedding=[*rows.values(), rows[image]])
    with raises("teacher.repeated", path=twice):
        load(twice, data)
    assert not list((data / "features").iterdir()), "nothing half-written"


def savez(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def write_words(path: Path) -> None:
    parquet.write_table(pa.table({"id": ["a"], "embedding": ["one"]}), path)


TWO = np.ones((2, 3))
WRONG: dict[str, Callable[[Path], object]] = {
    "none.parquet": lambda path: None,
    "another.csv": lambda path: path.write_text("id,embedding\n"),
    "damaged.parquet": lambda path: path.write_bytes(b"PAR1 and no more"),
    "damaged.npz": lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
    "empty.npz": Path.touch,
    "folder": Path.mkdir,
    "words.parquet": write_words,
    "lengths.npz": savez(id=np.array(["a"]), embedding=TWO),
    "pickled.npz": savez(id=np.array(["a", 1], object), embedding=TWO),
    "flat.npz": savez(id=np.array(["a", "b"]), embedding=TWO[:, 0]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_teacher_is_named(name: str, tmp_path: Path):
    WRONG[name](tmp_path / name)
    with raises("teacher.file", path=tmp_path / name):
        list(read_teacher(tmp_path / name))


def test_columns_and_unfinished_folders_are_checked(embedded: Path, tmp_path: Path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), path)
    with raises("teacher.columns", path=path):
        next(read_teacher(path))
    folder = shutil.copytree(embedded, tmp_path / "embedded")
    before = teacher_digest(folder)
    assert before == teacher_digest(embedded)
    manifest = json.loads((folder / "texts.json").read_text())
    (folder / "texts.json").write_text(json.dumps(manifest | {"complete": False}))
    assert teacher_digest(folder) != before
    with raises("teacher.file", path=folder):
        list(read_teacher(folder))
