"""Writes prepared data as NumPy arrays, for training on a machine without TensorFlow.

    python -m examples.jax_arrays --preset flickr8k_mobilenet --data data/flickr8k --out arrays

Needs TensorFlow. `--preset` and every configuration key are those of `train`. The folder holds

- `images.npy`: uint8 `[N, S, S, 3]`, the training images, resized as for evaluation;
- `captions.npy`: int32 `[N, K, T]`, the token ids of their captions. K is the largest number of
  captions of an image; an image with fewer repeats its own;
- `instances.npy`: int32 `[N]`, the class of each image;
- `config.json`: `config`, the configuration, and `data`, the sizes of vocabulary and classifier.

`examples/jax_fit.py` trains on it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser

from pipelines._configuration import add_configuration, configuration
from tf_dpce.config import Config, to_dict

BATCH = 64


def write_arrays(config: Config, data: Path, out: Path) -> None:
    """Writes the training split of prepared data as arrays.

    Args:
        config: configuration of the run.
        data: folder of prepared data.
        out: folder to write.
    """
    from tf_dpce.data.input_pipeline import caption_groups, evaluation_images
    from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
    from tf_dpce.files import write_json
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
    from tf_dpce.preprocessing.vocabulary import read_vocabulary
    from tf_dpce.training.run_folder import provenance

    manifest, size = Manifest.load(data), config.image.input_size
    words = tuple(read_vocabulary(data / VOCABULARY_FILE))
    tokenizer = CaptionTokenizer(words, config.text.max_length, manifest.lowercase)
    out.mkdir(parents=True, exist_ok=True)
    shape = (manifest.splits["train"].images, size, size, 3)
    images = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, shape)
    captions, instances = [], []
    batches = evaluation_images(data, "train", size, BATCH, config.image.resize)
    for batch, groups in zip(batches, caption_groups(data, "train", BATCH), strict=True):
        pixels = np.rint(batch["image"].numpy()).astype(np.uint8)
        images[len(instances) : len(instances) + len(pixels)] = pixels
        instances.extend(batch["instance"].numpy())
        captions.extend(tokenizer(group).numpy() for group in groups["captions"])
    images.flush()
    most = max(map(len, captions))
    repeated = [np.resize(ids, (most, ids.shape[1])) for ids in captions]
    np.save(out / "captions.npy", np.stack(repeated))
    np.save(out / "instances.npy", np.asarray(instances, np.int32))
    write_json(out / "config.json", {"config": to_dict(config), "data": provenance(manifest)})


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the arrays that the command line asks for."""
    parser = ArgumentParser(description="Writes prepared data as NumPy arrays.")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    add_configuration(parser, argv)
    arguments = parser.parse_args(argv)
    if arguments.teacher:
        parser.error("--teacher is for `train` alone: this example knows no teacher")
    write_arrays(configuration(arguments), arguments.data, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main(sys.argv[1:])
