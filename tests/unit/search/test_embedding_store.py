"""Manifest and records of a folder of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.errors import raises
from tests.unit.search.plain import MODEL
from tf_dpce.search.embedding_store import (
    IMAGES,
    KindProgress,
    Shard,
    StoredEmbeddings,
    StoreManifest,
    map_records,
    write_lines,
    write_records,
)


def test_a_record_is_found_by_its_row(tmp_path: Path):
    draw = np.random.default_rng(0)
    signs = list('aé狗🐕 "\\\t')  # one to four bytes each, and what JSON escapes
    expected = [
        {"id": str(n), "text": "".join(draw.choice(signs, draw.integers(0, 40)))} for n in range(50)
    ]
    for number, part in enumerate((expected[:7], expected[7:])):
        write_lines(tmp_path / f"{number}.jsonl", part)
    path = tmp_path / "all.arrow"
    assert write_records(path, [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]) == 50
    records = map_records(path)
    assert [records.slice(row, 1).to_pylist() for row in range(50)] == [[r] for r in expected]


def test_a_damaged_manifest_is_refused(tmp_path: Path):
    path = tmp_path / "embeddings.json"
    with raises("embeddings.missing", path=path):
        StoreManifest.load(tmp_path)
    for content in ("{}", "[]", '{"model": "m", "dimension": 1}', '{"kinds": []}'):
        path.write_text(content)
        with raises("embeddings.manifest", path=path):
            StoreManifest.load(tmp_path)


def test_a_sample_is_of_all_shards_and_has_no_row_twice(tmp_path: Path):
    # Embeddings of one number each, its own.
    shards = []
    for number, rows in enumerate(np.split(np.arange(1_000, dtype=np.float32), [100, 400])):
        name = f"images-{number:05d}"
        np.save(tmp_path / f"{name}.npy", rows[:, np.newaxis])
        shards.append(Shard(name, len(rows), len(rows)))
    store = StoreManifest(MODEL, 1, {IMAGES: KindProgress("", 1_000, tuple(shards))})
    sample = StoredEmbeddings({tmp_path: store}, IMAGES).sample(900)[:, 0]
    assert len(np.unique(sample)) == 900
    # Each shard gives about nine in ten.
    for start, end in ((0, 100), (100, 400), (400, 1_000)):
        assert 0.8 < np.sum((sample >= start) & (sample < end)) / (end - start) < 0.98
