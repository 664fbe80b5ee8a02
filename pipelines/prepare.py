"""Turns images and captions into shards that training reads: `python -m pipelines.prepare`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files
from tf_dpce.data.manifest import REJECTED_FILE, discard, refuse_foreign
from tf_dpce.datasets.coco import read_coco, read_coco_captions
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.datasets.expected_sizes import compared_split, differences
from tf_dpce.datasets.extracted import ExtractedImages, folder_here
from tf_dpce.datasets.flickr import read_flickr8k, read_flickr30k
from tf_dpce.datasets.folder import read_folder
from tf_dpce.datasets.karpathy import read_karpathy
from tf_dpce.datasets.layouts import recognise
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.datasets.table import read_table
from tf_dpce.datasets.tar_shards import read_tar_shards
from tf_dpce.evaluation.metrics import RANK_IMAGES
from tf_dpce.logging import logger
from tf_dpce.ray_tasks import check_cluster, connected
from tf_dpce.remote_path import AnyPath, open_path
from tf_dpce.storage import check_place

if TYPE_CHECKING:
    from tf_dpce.data.prepare import Prepared
    from tf_dpce.datasets.repeats import Repeats

Source = Literal[
    *("auto", "scenes", "flickr8k", "flickr30k", "karpathy", "mscoco", "coco", "cuhk_pedes"),
    *("table", "folder", "shards"),
]
# These come without a split of their own, and all who use them hold out the same numbers.
_UNSPLIT = ("flickr30k", "mscoco")
_CORES = os.cpu_count()


def run(
    out: str,
    source: Source = "auto",
    root: str | None = None,
    images: str | None = None,
    annotations: str | None = None,
    split_file: str | None = None,
    image_column: str | None = None,
    caption_column: list[str] | None = None,
    workers: PositiveInt = _CORES,
    seed: int = 0,
    lowercase: bool = False,
    vectors: Path | None = None,
    train_images: PositiveInt | None = None,
    val_images: PositiveInt | None = None,
    test_images: PositiveInt | None = None,
    image_size: PositiveInt | None = None,
    engine: Literal["local", "ray"] = "local",
) -> None:
    """Checks images and captions and writes shards for training.

    Args:
        out: folder to write; an address such as s3://bucket/data writes to an object store.
        source: dataset to read (default: what is recognised).
        root: folder of the dataset, or its address, here as below; karpathy: of its images; shards:
            tar files.
        images: folder of images, if it is another.
        annotations: file of captions; flickr8k, mscoco: folder of files.
        split_file: lines of image<TAB>split, official lists or Karpathy's file.
        image_column: table: column of images, if its name is not one of the usual.
        caption_column: table: columns of captions, if their names are not among the usual.
        workers: number of threads or processes.
        seed: seed of order, split and scenes.
        lowercase: convert captions to lower case.
        vectors: file of word vectors; drop words without one.
        train_images: scenes: number of training scenes (default: 16000).
        val_images: scenes: number of validation scenes (default: 500).
        test_images: scenes: number of test scenes (default: 500).
        image_size: scenes: size of a scene in pixels (default: 48).
        engine: this process, or the machines of a Ray cluster, which read the same folders.
    """
    check_place(out)
    if engine == "ray":
        check_cluster()
    places = {"root": root, "images": images, "annotations": annotations, "split_file": split_file}
    places = {name: None if at is None else open_path(at) for name, at in places.items()}
    target = open_path(out)
    numbers = {"train_images": train_images, "val_images": val_images, "test_images": test_images}
    columns = {"image_column": image_column, "caption_column": caption_column}
    given = {**places, **columns, **numbers, "image_size": image_size}
    common = {"out": target, "seed": seed, "workers": workers, "extracted": _extracted(target)}
    if source == "auto":
        source, given = _recognised(given)
    items = _read(source, given, common)
    from tf_dpce.data.prepare import prepare

    settings = {"lowercase": lowercase, "vectors": vectors, "workers": workers, "engine": engine}
    # Once for all splits: the processes of the cluster stay.
    with connected() if engine == "ray" else nullcontext():
        prepared = prepare(items, target, source=source, seed=seed, **settings)
    _print_counts(prepared)
    published = source
    if source == "karpathy":
        published = f"karpathy/{given['annotations'].stem.removeprefix('dataset_')}"
    splits = prepared.manifest.splits
    counts = {name: split.images for name, split in splits.items()}
    see = REJECTED_FILE if prepared.rejected else ""
    # What is published of the others is the size of their own split.
    if not split_file or source in _UNSPLIT:
        people = splits["train"].instances
        for line in differences(published, counts, people, see, split_file is not None):
            print(line)
    for line in compared_split(published, prepared.manifest.split_digest):
        print(line)
    # How a table is split is its owner's affair; on these data sets results are compared.
    if source in _UNSPLIT and not split_file:
        print(f"split drawn by --seed {seed}; --split-file takes a published one")
    say_files(prepared.files)


def _recognised(given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the source that the places have the layout of, and its options."""
    path = given["annotations"] or given["root"]
    if path is None:
        build_parser().error("--root is needed, or --source scenes")
    layout = recognise(path)
    logger.info(f"found {layout.description} in {path}: read by --source {layout.source}")
    options = dict(layout.options)
    if given["annotations"] and given["root"]:
        # Where a file of captions lies says nothing about where the images are.
        options["root" if "root" in options else "images"] = given["root"]
    if given["images"]:
        options["root" if layout.source == "karpathy" else "images"] = given["images"]
    return layout.source, {**given, **dict.fromkeys(("root", "images", "annotations")), **options}


def _read(source: str, given: dict[str, Any], common: dict[str, Any]) -> Iterator[Image | Rejected]:
    """Returns what a source yields, whose options are the parameters of its reader."""
    parameters = signature(_READERS[source]).parameters
    if given["annotations"] and not given["root"] and "root" in parameters:
        # The captions lie in the folder of the dataset, or are a folder in it.
        given = {**given, "root": given["annotations"].parent}
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            if name in parameters and parameters[name].default is Parameter.empty:
                build_parser().error(f"--source {source} needs {option}")
        elif name not in parameters:
            build_parser().error(f"--source {source} takes no {option}")
    options = {name: value for name, value in {**given, **common}.items() if value is not None}
    return _READERS[source](**{name: options[name] for name in parameters if name in options})


def _extracted(out: AnyPath) -> ExtractedImages:
    """Returns the folder for readers of files that hold the images themselves."""
    folder = out / "images"

    def begin() -> None:
        refuse_foreign(out, [folder])
        discard(out)

    return ExtractedImages(folder, begin)


def _draw_scenes(
    out: AnyPath,
    seed: int,
    workers: int,
    train_images: int = 16_000,
    val_images: int = 500,
    test_images: int = 500,
    image_size: int = 48,
) -> Iterator[Image]:
    """Draws scenes once `prepare` asks for them: it then locks out other processes."""
    from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

    folder = folder_here(out / "scenes")
    refuse_foreign(out, [folder])
    numbers = scene_numbers(train_images, val_images, test_images)
    scenes = draw_scenes(folder, seed, numbers, image_size, workers)
    discard(out)
    yield from scenes


_READERS = {
    "scenes": _draw_scenes,
    "flickr8k": read_flickr8k,
    "flickr30k": read_flickr30k,
    "karpathy": read_karpathy,
    "mscoco": read_coco,
    "coco": read_coco_captions,
    "cuhk_pedes": read_cuhk_pedes,
    "table": read_table,
    "folder": read_folder,
    "shards": read_tar_shards,
}


def _print_counts(prepared: Prepared) -> None:
    from tf_dpce.data.caption_lengths import UNSPLIT_WORDS, describe_lengths, has_unsplit_words

    manifest, splits = prepared.manifest, prepared.manifest.splits
    for name, split in splits.items():
        print(f"{name:<6}{split.images:>8,} images{split.captions:>10,} captions", end="")
        print(f"{split.instances:>8,} instances{len(split.shards):>4} shards")
    images = sum(split.images for split in splits.values())
    captions = sum(split.captions for split in splits.values())
    reasons = Counter(item.reason for item in prepared.rejected).most_common()
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    print(f"stored {images:,} images with {captions:,} captions")
    if splits["val"].images < RANK_IMAGES:
        few = f"{splits['val'].images} and {splits['test'].images} images"
        print(f"val and test are small ({few}): training takes the last epoch, ", end="")
        print("and their recalls say little")
    print(f"rejected {len(prepared.rejected):,}" + (f": {why}" if why else ""))
    if manifest.converted:
        print(f"{manifest.converted:,} images of other formats than JPEG and PNG stored as PNG")
    _print_repeats(manifest.repeats)
    # Of persons; an image that is an instance of its own does not count, nor do its copies.
    instances = sum(split.instances for split in splits.values())
    lone = any(split.lone_instances for split in splits.values())
    if lone or instances + manifest.repeats.copies < images:
        counts = (f"{name} {split.lone_instances:,}" for name, split in splits.items())
        print(f"instances with one image: {', '.join(counts)}")
    print(
        f"vocabulary of {manifest.vocabulary_size:,} words, "
        f"{100 * manifest.vocabulary_coverage:.1f} % of the training captions' words"
    )
    print(describe_lengths(manifest.caption_lengths))
    if has_unsplit_words(manifest.caption_lengths, prepared.words):
        print(UNSPLIT_WORDS)


def _print_repeats(repeats: Repeats) -> None:
    if repeats.copies:
        print(
            f"{repeats.copies:,} images are copies of others: each is one instance with the first"
        )
    if repeats.across_splits:
        print(f"{repeats.across_splits:,} images lie in several splits as copies", end="")
        print(": give them one, or the test knows images of training")
    if repeats.captions:
        print(f"{repeats.captions:,} captions are shared by {repeats.captioned:,} images", end="")
        print(", which count as wrong for one another unless a column 'instance' makes them one")


build_parser, main = options_verb("prepare", run)

if __name__ == "__main__":
    sys.exit(main())
