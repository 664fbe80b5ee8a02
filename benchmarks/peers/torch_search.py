"""Finds images by a text with PyTorch: `torch_search FOLDER PRESET TEXT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.torch_network import DualPath, load_weights
from tf_dpce.config import from_dict, preset_values

_TOP = 10


def main(folder: Path, preset: str, text: str) -> None:
    """Prints the ids of the nearest images, best first."""
    config = from_dict(preset_values(preset))
    words = (folder / "words.txt").read_text().split()
    network = DualPath(config, config.stage1, len(words), 2, rows=True).eval()
    with np.load(folder / "weights.npz") as saved:
        towers = [name for name in saved.files if not name.startswith("image_backbone")]
        load_weights(network, {name: saved[name] for name in towers})
    ids = torch.zeros((1, config.text.max_length), dtype=torch.int64)
    for place, word in enumerate(text.split()):
        ids[0, place] = words.index(word) + 1
    with torch.inference_mode():
        embedding = network.text_tower(ids)[0].numpy()
    scores = np.load(folder / "embeddings.npy") @ embedding
    for row in np.argsort(-scores)[:_TOP]:
        print(row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
