"""Manifest and records of a folder of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.errors import raises
from tests.unit.search.plain import MODEL
from tf_dpce.search.embedding.store import (
    IMAGES,
    KindProgress,
    Shard,
    StoredEmbeddings,
    StoreManifest,
)


def test_a_damaged_manifest_is_refused(tmp_path: Path):
    path = tmp_path / "images.json"
    with raises("embeddings.missing", path=tmp_path):
        StoreManifest.load(tmp_path)
    for content in ("{}", "[]", '{"model": "m", "dimension": 1}', '{"shards": 1}', "{"):
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
