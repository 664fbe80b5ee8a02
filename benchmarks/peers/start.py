"""A search by a text in a fresh process, beside a script on PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.pairs import Pair, Side, Work

_PRESET, _IMAGES = "flickr8k_mobilenet", 8_000
# Words of `random_tokenizer`.
_TEXT = "word12 word345 word678 word90 word1234"


def pairs(images: Path | None) -> list[Pair]:
    """Returns the one pair, over an index of drawn embeddings."""
    peers = (
        Side("a script on PyTorch", f"{__name__}:script", {}, ("torch",), goal=1.0),
        Side("ours in TensorFlow", f"{__name__}:ours", {"runtime": "tensorflow"}),
    )
    ours = Side("ours in ONNX Runtime", f"{__name__}:ours", {"runtime": "onnx"})
    case = f"{_IMAGES:,} images"
    return [Pair(case, "searches a second", ours, peers, 0.0, rounds=7, warm_up=1)]


def ours(folder: Path, runtime: str) -> Work:
    """Opens the verb `search`; the first writes the export, the index and what a script needs."""
    if not (folder / "index").exists():
        _write(folder)
    places = ["--index", str(folder / "index"), "--model", str(folder / "model")]
    options = ["--text", _TEXT, "--runtime", runtime, "--json"]
    command = [sys.executable, "-m", "pipelines.search", *places, *options]

    def call() -> list[int]:
        answer = subprocess.run(command, capture_output=True, check=True)
        return [int(hit["id"]) for hit in json.loads(answer.stdout)["hits"]]

    return Work(call, call(), 1)


def script(folder: Path) -> Work:
    """Opens the script, which has nothing to check and to explain."""
    script = "benchmarks.peers.torch_search"
    command = [sys.executable, "-m", script, str(folder), _PRESET, _TEXT]

    def call() -> list[int]:
        answer = subprocess.run(command, capture_output=True, check=True)
        return [int(line) for line in answer.stdout.split()]

    return Work(call, call(), 1)


def _write(folder: Path) -> None:
    import pyarrow as pa

    from benchmarks.material import random_model
    from benchmarks.peers.export import WORDS, export_config, write_export
    from tf_dpce.search.embedding.facts import image_schema
    from tf_dpce.search.embedding.fingerprint import model_digest
    from tf_dpce.search.index.manifest import IndexManifest
    from tf_dpce.search.index.writer import writing

    version, config = write_export(folder, _PRESET, ("onnx",)), export_config(_PRESET)
    named = random_model(config, WORDS, classes=2).named_variables()
    weights = {name.replace("/", "|"): variable.numpy() for name, variable in named}
    np.savez(folder / "weights.npz", **weights)
    (folder / "words.txt").write_text("".join(f"word{n}\n" for n in range(WORDS)))
    vectors = np.random.default_rng(0).standard_normal((_IMAGES, config.model.output_dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    np.save(folder / "embeddings.npy", vectors)
    ids = [str(number) for number in range(_IMAGES)]
    records = pa.table({"id": ids, "path": ids}, schema=pa.schema(list(image_schema())[:2]))
    (folder / "index").mkdir()
    manifest = IndexManifest(model_digest(version), config.model.output_dim)
    with writing(folder / "index", manifest) as writer:
        writer.add("images", [(records, vectors)], whole=True)
        writer.commit()
