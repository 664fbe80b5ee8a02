"""Preparing a data set, beside a script that passes over it once with Pillow."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pairs import CORES, Pair, Side, Work
from benchmarks.peers.files import find_files, write_files, write_table

_COUNT = 1_500


def pairs(images: Path | None) -> list[Pair]:
    """Returns the one pair."""
    settings = {"images": images and str(images), "count": _COUNT}
    ours = Side("ours, two threads", f"{__name__}:ours", settings)
    peers = (Side("a pass of Pillow and TFRecordWriter", f"{__name__}:script", {}, goal=1.5),)
    return [Pair(f"{_COUNT:,} files", "images a second", ours, peers, 0.0, rounds=5, warm_up=1)]


def ours(folder: Path, images: str | None, count: int, workers: int = CORES) -> Work:
    """Opens `prepare`: checks, splits, shards with digests and offsets, vocabulary, manifest."""
    from tf_dpce.data.prepare import prepare
    from tf_dpce.datasets.table import read_table

    if not (folder / "images").exists():
        write_files(folder, images, count)
    found, table = len(find_files(folder)), write_table(folder)

    def call() -> list[int]:
        items = read_table(table, folder / "images")
        with TemporaryDirectory(dir=folder) as out:
            done = prepare(
                items, Path(out, "data"), source="table", lowercase=True, workers=workers
            )
        splits = done.manifest.splits.values()
        return [*(sum(getattr(s, name) for s in splits) for name in ("images", "captions"))]

    return Work(call, call(), found)


def script(folder: Path) -> Work:
    """Opens what one writes in an afternoon: decode, write the bytes, count the words."""
    import tensorflow as tf
    from PIL import Image

    def feature(values: list[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def call() -> list[int]:
        words: Counter[str] = Counter()
        images = texts = 0
        with (
            (folder / "table.tsv").open(newline="") as stream,
            TemporaryDirectory(dir=folder) as out,
        ):
            rows = csv.DictReader(stream, delimiter="\t")
            groups = itertools.groupby(rows, lambda row: (row["image"], row["split"]))
            writers = {
                split: tf.io.TFRecordWriter(f"{out}/{split}.tfrecord")
                for split in ("train", "val", "test")
            }
            for (name, split), group in groups:
                captions = [row["caption"] for row in group]
                path = folder / "images" / name
                with Image.open(path) as image:
                    image.convert("RGB")
                features = {"image": feature([path.read_bytes()]), "path": feature([name.encode()])}
                features["captions"] = feature([caption.encode() for caption in captions])
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writers[split].write(example.SerializeToString())
                words.update(word for caption in captions for word in caption.lower().split())
                images, texts = images + 1, texts + len(captions)
            for writer in writers.values():
                writer.close()
            Path(out, "vocabulary.txt").write_text("\n".join(words))
        return [images, texts]

    return Work(call, call(), len(find_files(folder)))
