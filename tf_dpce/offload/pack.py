"""Prepared data and a configuration -> a bundle. The only side that reads shards and JPEGs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.config import Config, to_dict
from tf_dpce.data.caption_lengths import tell_cut_captions
from tf_dpce.data.checksums import told_of_damage
from tf_dpce.data.input_pipeline import parse_record, records
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import publish_folder, remove_stale, sha256_file, write_json
from tf_dpce.models.dual_path import DualPath
from tf_dpce.offload.bundle import (
    CONFIG_FILE,
    FORMAT,
    START_FILE,
    Say,
    captions_path,
    pictures_path,
    save_weights,
    told_of_writing,
)
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import declared_shape
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.archive import write_arrays
from tf_dpce.training.assembly import mark_trained
from tf_dpce.training.build import starting_model, with_absolute_paths
from tf_dpce.training.caption_table import encode_captions, tell_unknown_words
from tf_dpce.training.checks import check_stages, check_vocabulary
from tf_dpce.training.features import Bar, silent_bar
from tf_dpce.training.run_folder import provenance

# Side of the pictures that crops are cut from, over that of the network's. The smallest crop has
# 0.6 of a side, so that most are not enlarged.
_SPARE = 1.5
_BATCH = 64


def pack(
    config: Config,
    data: Path,
    out: Path,
    say: Say = lambda line: None,
    progress: Bar = silent_bar,
) -> None:
    """Writes a bundle: pictures decoded, captions encoded, and the weights to start from.

    Args:
        config: of the run.
        data: folder of prepared data.
        out: folder to make.
        say: called with a line now and then.
        progress: makes the bar of pictures.

    Raises:
        UserError: what `train` would refuse, what needs TensorFlow, or a disk that is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out, or remove it")
    config = _without_cache(with_absolute_paths(config), say)
    manifest = _checked_data(config, data)
    words = tuple(read_vocabulary(data / VOCABULARY_FILE))
    encoder = CaptionTokenizer(words, config.text.max_length, manifest.lowercase)
    model = _checked_model(config, starting_model(config, words, manifest, say, data))
    tell_cut_captions(manifest, encoder.max_length, say)
    tell_unknown_words(data, manifest, encoder, say)
    with told_of_writing(out, "make room there, or choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out.parent)
        with told_of_damage(data), publish_folder(out) as folder:
            shutil.copyfile(data / VOCABULARY_FILE, folder / VOCABULARY_FILE)
            save_weights(model, folder / START_FILE)
            _write_splits(folder, config, data, manifest, encoder, progress)
            _write_config(folder, config, manifest)


def _without_cache(config: Config, say: Say) -> Config:
    for number in (1, 2):
        stage = config.stage(number)
        if stage.epochs and stage.trunk == "cached":
            say(f"stage {number}: trunk cached is fitted as frozen: each epoch runs the trunk")
            config = replace(config, **{f"stage{number}": replace(stage, trunk="frozen")})
    return config


def _checked_data(config: Config, data: Path) -> Manifest:
    if config.model.sampled_negatives:
        raise UserError(
            f"--model.sampled_negatives {config.model.sampled_negatives} needs TensorFlow: give 0 "
            "for the exact classifier, or use train"
        )
    for number in (1, 2):
        stage = config.stage(number)
        if stage.epochs and stage.loss.mines_negatives:
            raise UserError(
                f"--stage{number}.loss.negatives mined needs TensorFlow: give "
                f"--stage{number}.loss.negatives given or batch, or use train"
            )
    manifest = Manifest.load(data)
    check_stages(config, (1, 2), manifest.splits["train"].pictures, replicas=1)
    check_vocabulary(data, manifest)
    if not manifest.splits["val"].captions:
        raise UserError(f"{data} has no validation captions to choose the best epoch by")
    return manifest


def _checked_model(config: Config, model: DualPath) -> DualPath:
    """Refuses a `trunk_from` that the trunk lacks here, not on the other machine."""
    for number in (1, 2):
        if config.stage(number).epochs:
            mark_trained(config.stage(number), model)
    return model


def _write_splits(
    folder: Path,
    config: Config,
    data: Path,
    manifest: Manifest,
    encoder: CaptionTokenizer,
    progress: Bar,
) -> None:
    image = config.image
    # A crop may take what the centred square lacks, so it is cut from the whole picture, squashed.
    cut = (int(np.ceil(_SPARE * image.input_size)), True)
    plain = (image.input_size, image.squash)
    counts = {name: manifest.splits[name].pictures for name in ("train", "val")}
    done = 0
    with progress() as report:
        for name, (side, squash) in (("train", cut if image.crop else plain), ("val", plain)):
            pictures = _reserved(pictures_path(folder, name), counts[name], side)
            shapes, first = [], done
            for pixels, shape in stored_pictures(data, name, side, squash):
                pictures[done - first : done - first + len(pixels)] = pixels.numpy()
                shapes.append(shape.numpy())
                done += len(pixels)
                report(done, sum(counts.values()))
            pictures.flush()
            captions = vars(encode_captions(data, name, encoder))
            arrays = {"shapes": np.concatenate(shapes), **captions}
            write_arrays(captions_path(folder, name), arrays.items())


def stored_pictures(data: Path, split: str, side: int, squash: bool) -> tf.data.Dataset:
    """Returns every picture of a split once, in the order of the shards, in whole levels.

    Batches are uint8 `[B, side, side, 3]`, squashed or cut to squares, and int32 `[B, 2]`, height
    and width before.
    """

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        contents = parse_record(serialized)["image"]
        pixels = tf.round(evaluation_pixels(contents, side, squash))
        return tf.cast(pixels, tf.uint8), declared_shape(contents)

    pictures = records(data, split).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(_BATCH).prefetch(2)


def _reserved(path: Path, count: int, side: int) -> np.ndarray:
    pictures = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
    # Writing to a map of a full disk kills the process; reserving the disk is a plain OSError.
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return pictures


def _write_config(folder: Path, config: Config, manifest: Manifest) -> None:
    bundle = {"format": FORMAT, "start_sha256": sha256_file(folder / START_FILE)}
    saved = {"config": to_dict(config), "data": provenance(manifest), "bundle": bundle}
    write_json(folder / CONFIG_FILE, saved)
