"""A model, a run and prepared data, small enough for every test of evaluation and exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tf_dpce.config import Config, from_dict, to_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets import listing
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.session_process import SessionModel
from tf_dpce.files import sha256_lines, write_json
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.vocabulary import write_vocabulary
from tf_dpce.training.checkpoint import Progress, best_path, save_checkpoint

WORDS = ("a", "dog", "on", "the", "grass", "naïve", "狗", "two", "cats", "sleep")
SIZE = 32
WIDTH = 16


CONFIG = from_dict(
    {
        "weights": "none",
        "image": {"backbone": "small", "input_size": SIZE, "head_dim": 16},
        "text": {"max_length": 6, "word_dim": 8, "blocks": [1, 1], "widths": [8, 16]},
        "model": {"output_dim": WIDTH},
    }
)


def tiny_model(seed: int = 0, config: Config = CONFIG) -> DualPath:
    keras.utils.set_random_seed(seed)
    model = build_model(config, len(WORDS), num_instances=5)
    # BatchNorm averages as training leaves them; at their start nearly all rows look alike.
    draw = np.random.default_rng(seed)
    step = tf.function(lambda batch: model(batch, training=True))
    for _ in range(40):
        pixels = np.repeat(np.repeat(draw.uniform(0, 255, (8, 4, 4, 3)), 8, axis=1), 8, axis=2)
        batch = {"image": pixels, "text": draw.integers(0, len(WORDS) + 1, (8, 6))}
        step({key: tf.constant(value) for key, value in batch.items()})
    return model


def tiny_run(folder: Path, seed: int = 0) -> Path:
    """A run folder as training leaves it, of `tiny_model(seed)`."""
    data = {
        "source": "table",
        "split_digest": "5" * 64,
        "vocabulary_size": len(WORDS),
        "vocabulary_sha256": sha256_lines(WORDS),
        "lowercase": True,
        "num_instances": 5,
    }
    write_json(folder / "config.json", {"config": to_dict(CONFIG), "data": data})
    write_vocabulary(folder / "vocabulary.txt", WORDS)
    path = best_path(folder, 1)
    path.parent.mkdir()
    save_checkpoint(path, tiny_model(seed).variables, Progress(1, 1, 0, 0.0))
    return folder


def tiny_data(folder: Path, images: int = 3) -> Manifest:
    """Prepared data: 3 images a split, with 1, 2 and 3 captions."""
    drawn = []
    for place, split in enumerate(listing.SPLITS):
        for number in range(images):
            path = folder / "images" / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw = np.random.default_rng(3 * place + number)
            Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
            captions = [" ".join(draw.choice(WORDS, 4)) for _ in range(number + 1)]
            drawn.append(listing.Image(path.name, path, captions, split))
    return prepare(drawn, folder, source="table", lowercase=True).manifest


def pairs_to_calibrate(folder: Path, val: int = 200, test: int = 25) -> Path:
    """Prepared data with so many images in two splits, each with a caption; 200 are enough."""
    drawn = []
    for number, split in enumerate(["train"] + ["val"] * val + ["test"] * test):
        path = folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize((SIZE, SIZE)).save(path)
        drawn.append(listing.Image(path.name, path, [" ".join(draw.choice(WORDS, 4))], split))
    prepare(drawn, folder / "data", source="table", lowercase=True)
    return folder / "data"


def encode(
    served: SessionModel, endpoint: str, contents: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[B, D]` and statuses `[B]` of B byte strings, by an endpoint of an export."""
    answer = served.run(endpoint, {ENDPOINTS[endpoint]: contents})
    return answer["embedding"], answer["status"]
