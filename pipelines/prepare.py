"""Turns images and captions into shards that training reads: `python -m pipelines.prepare`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.data.manifest import REJECTED_FILE, discard, refuse_foreign
from tf_dpce.datasets.coco import read_coco
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.datasets.expected_sizes import differences
from tf_dpce.datasets.flickr import read_flickr8k, read_flickr30k
from tf_dpce.datasets.karpathy import read_karpathy
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.datasets.table import read_table

if TYPE_CHECKING:
    from tf_dpce.data.prepare import Prepared

# These come without a split of their own, and all who use them hold out the same numbers.
_UNSPLIT = ("flickr30k", "mscoco")


def build_parser() -> ArgumentParser:
    """Returns the parser of this verb."""
    parser = verb_parser("prepare", "Checks images and captions and writes shards for training.")
    parser.add_argument("--source", choices=list(_READERS), required=True, help="dataset to read")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--root", type=Path, help="folder of the dataset; karpathy: of its images")
    parser.add_argument("--images", type=Path, help="folder of images, if it is another")
    parser.add_argument(
        "--annotations", type=Path, help="file of captions; flickr8k, mscoco: folder of files"
    )
    parser.add_argument(
        "--split-file", type=Path, help="lines of image<TAB>split, instead of any other split"
    )
    parser.add_argument(
        "--workers", type=PositiveInt, default=os.cpu_count(), help="number of threads or processes"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of order, split and scenes")
    parser.add_argument("--lowercase", action="store_true", help="convert captions to lower case")
    parser.add_argument("--vectors", type=Path, help="file of word vectors; drop words without one")
    for option, meaning in _SCENE_OPTIONS.items():
        # A default of the parser would hide whether the option was given.
        text = f"scenes: {meaning} (default: {signature(_draw).parameters[option].default})"
        parser.add_argument(_flag(option), type=PositiveInt, help=text)
    return parser


def run(arguments: Namespace) -> None:
    """Reads, checks and writes; prints what was stored and what was rejected."""
    source, given = arguments.source, arguments.split_file is not None
    items = _read(arguments)
    from tf_dpce.data.prepare import prepare

    options = ("source", "seed", "lowercase", "vectors", "workers")
    prepared = prepare(items, arguments.out, **{name: arguments[name] for name in options})
    _print_counts(prepared)
    splits = prepared.manifest.splits
    images = {name: split.images for name, split in splits.items()}
    see = REJECTED_FILE if prepared.rejected else ""
    published = source
    if source == "karpathy":
        published = f"karpathy/{arguments.annotations.stem.removeprefix('dataset_')}"
    # What is published of the others is the size of their own split.
    if not given or source in _UNSPLIT:
        for line in differences(published, images, splits["train"].instances, see, given):
            print(line)
    # How a table is split is its owner's affair; on these data sets results are compared.
    if source in _UNSPLIT and not given:
        print(f"split drawn by --seed {arguments.seed}; --split-file takes a published one")
    say_files(prepared.files)


def _read(arguments: Namespace) -> Iterator[Image | Rejected]:
    """Calls the source's reader with the options that it takes; a default of None is not given."""
    reader = _READERS[arguments.source]
    takes = signature(reader).parameters
    for option in (*_READER_OPTIONS, *_SCENE_OPTIONS):
        given = arguments[option] is not None
        if given and option not in takes:
            build_parser().error(f"--source {arguments.source} takes no {_flag(option)}")
        if not given and option in takes and takes[option].default is Parameter.empty:
            build_parser().error(f"--source {arguments.source} needs {_flag(option)}")
    return reader(**{name: arguments[name] for name in takes if arguments[name] is not None})


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _draw(
    out: Path,
    seed: int,
    workers: int,
    train_images: int = 16_000,
    val_images: int = 500,
    test_images: int = 500,
    image_size: int = 64,
) -> Iterator[Image]:
    """Draws scenes once `prepare` asks for them: it then locks out other processes."""
    from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

    folder = (out / "scenes").resolve()
    refuse_foreign(out, [folder])
    numbers = scene_numbers(train_images, val_images, test_images)
    scenes = draw_scenes(folder, seed, numbers, image_size, workers)
    discard(out)
    yield from scenes


# A source's options are the parameters of its reader.
_READERS = {
    "scenes": _draw,
    "flickr8k": read_flickr8k,
    "flickr30k": read_flickr30k,
    "karpathy": read_karpathy,
    "mscoco": read_coco,
    "cuhk_pedes": read_cuhk_pedes,
    "table": read_table,
}
_READER_OPTIONS = ("root", "images", "annotations", "split_file")
_SCENE_OPTIONS = {
    "train_images": "number of training scenes",
    "val_images": "number of validation scenes",
    "test_images": "number of test scenes",
    "image_size": "size of a scene in pixels",
}


def _print_counts(prepared: Prepared) -> None:
    from tf_dpce.data.caption_lengths import describe_lengths

    manifest, splits = prepared.manifest, prepared.manifest.splits
    for name, split in splits.items():
        print(f"{name:<6}{split.images:>8,} images{split.captions:>10,} captions", end="")
        print(f"{split.instances:>8,} instances{len(split.shards):>4} shards")
    images = sum(split.images for split in splits.values())
    captions = sum(split.captions for split in splits.values())
    reasons = Counter(item.reason for item in prepared.rejected).most_common()
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    print(f"stored {images:,} images with {captions:,} captions")
    print(f"rejected {len(prepared.rejected):,}" + (f": {why}" if why else ""))
    if manifest.bitmaps:
        print(f"{manifest.bitmaps:,} BMP images stored as PNG")
    # Of persons; an image that is an instance of its own does not count.
    if any(split.lone_instances or split.instances < split.images for split in splits.values()):
        counts = (f"{name} {split.lone_instances:,}" for name, split in splits.items())
        print(f"instances with one image: {', '.join(counts)}")
    print(
        f"vocabulary of {manifest.vocabulary_size:,} words, "
        f"{100 * manifest.vocabulary_coverage:.1f} % of the training captions' words"
    )
    print(describe_lengths(manifest.caption_lengths))


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
