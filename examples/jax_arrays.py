"""Writes prepared data as NumPy arrays, for training on a machine without TensorFlow.

    python -m examples.jax_arrays --preset flickr8k_mobilenet --data data/flickr8k --out arrays

Needs TensorFlow. `--preset` and every configuration key are those of `train`. The folder holds

- `images.npy`: uint8 `[N, S, S, 3]`, the training images, resized as for evaluation;
- `captions.npy`: int32 `[N, K, T]`, the token ids of their captions. K is the largest number of
  captions of an image; an image with fewer repeats its own;
- `instances.npy`: int32 `[N]`, the class of each image;
- `start.weights.h5`: the model that training starts from, with the weights of `--weights` and
  `--vectors`;
- `config.json`: `config`, the configuration, and `data`, the sizes of vocabulary and classifier.

`examples/jax_fit.py` trains on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipelines._verb import options_verb, say_files
from tf_dpce.config import Config, to_dict
from tf_dpce.errors import UserError

BATCH = 64


def run(data: Path, out: Path, config: Config) -> None:
    """Writes the training split of prepared data, and the starting weights, as arrays.

    Args:
        data: folder of prepared data.
        out: folder to write.
        config: configuration of the run.

    Raises:
        UserError: the data cannot be read, or the weights or word vectors do not fit; or the
            configuration has what `jax_fit` does not know.
    """
    if config.teacher or config.text.tokenizer != "words":
        message = "jax_fit knows no --teacher and no --text.tokenizer but words: use train"
        raise UserError("config.value", message)
    from tf_dpce.data.input_pipeline import caption_groups, evaluation_images
    from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
    from tf_dpce.files import write_json
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
    from tf_dpce.preprocessing.vocabulary import read_vocabulary
    from tf_dpce.training.model_factory import starting_model
    from tf_dpce.training.run_folder import provenance

    manifest, size = Manifest.load(data), config.image.input_size
    words = tuple(read_vocabulary(data / VOCABULARY_FILE))
    tokenizer = CaptionTokenizer(words, config.text.max_length, manifest.lowercase)
    # First, because it is here that files of weights or vectors may turn out not to fit.
    start = starting_model(config, words, manifest, data)
    out.mkdir(parents=True, exist_ok=True)
    start.save_weights(out / "start.weights.h5")
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
    say_files([out])


build_parser, main = options_verb("examples.jax_arrays", run)


if __name__ == "__main__":
    sys.exit(main())
