"""Turns images and captions into shards that training reads: `python -m pipelines.prepare`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
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
from tf_dpce.datasets.karpathy import karpathy_dataset, load_karpathy, read_karpathy
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.table import read_table
from tf_dpce.logging import logger

if TYPE_CHECKING:
    from tf_dpce.data.prepare import Prepared

# The options that only scenes take, with their defaults.
_SCENES = {"train_images": 16_000, "val_images": 500, "test_images": 500, "image_size": 64}
# The options that each source needs, and those that it may have besides.
_OPTIONS = {
    "scenes": ((), tuple(_SCENES)),
    "flickr8k": (("root",), ("images", "annotations", "split_file")),
    "flickr30k": (("root",), ("images", "annotations", "split_file")),
    "karpathy": (("root", "annotations"), ("split_file",)),
    "mscoco": (("root",), ("annotations", "split_file")),
    "cuhk_pedes": (("root",), ("images", "annotations", "split_file")),
    "table": (("annotations",), ("root", "images", "split_file")),
}
# These come without a split of their own, and all who use them hold out the same numbers.
_UNSPLIT = ("flickr30k", "mscoco")


def build_parser() -> ArgumentParser:
    """Returns the parser of this verb."""
    parser = verb_parser("prepare", "Checks images and captions and writes shards for training.")
    parser.add_argument("--source", choices=list(_OPTIONS), required=True, help="dataset to read")
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
    for option, meaning in (
        ("train_images", "number of training scenes"),
        ("val_images", "number of validation scenes"),
        ("test_images", "number of test scenes"),
        ("image_size", "size of a scene in pixels"),
    ):
        # A default of the parser would hide whether the option was given.
        text = f"scenes: {meaning} (default: {_SCENES[option]})"
        parser.add_argument(f"--{option.replace('_', '-')}", type=PositiveInt, help=text)
    return parser


def run(arguments: Namespace) -> None:
    """Reads, checks and writes; prints what was stored and what was rejected."""
    _check_usage(arguments)
    items, published = _read(arguments)
    from tf_dpce.data.prepare import prepare

    prepared = prepare(
        items,
        arguments.out,
        source=arguments.source,
        seed=arguments.seed,
        lowercase=arguments.lowercase,
        vectors=arguments.vectors,
        workers=arguments.workers,
    )
    _print_counts(prepared)
    splits = prepared.manifest.splits
    images = {name: split.images for name, split in splits.items()}
    see = REJECTED_FILE if prepared.rejected else ""
    given = arguments.split_file is not None
    for line in differences(published, images, splits["train"].instances, see, given):
        print(line)
    # How a table is split is its owner's affair; on these data sets results are compared.
    if arguments.source in _UNSPLIT and not given:
        print(f"split drawn by --seed {arguments.seed}; --split-file takes a published one")
    say_files(prepared.files)


def _check_usage(arguments: Namespace) -> None:
    needed, allowed = _OPTIONS[arguments.source]
    for option in ("root", "images", "annotations", "split_file", *_SCENES):
        name, given = f"--{option.replace('_', '-')}", arguments[option] is not None
        if option in needed and not given:
            build_parser().error(f"--source {arguments.source} needs {name}")
        if given and option not in needed + allowed:
            build_parser().error(f"--source {arguments.source} takes no {name}")


def _read(arguments: Namespace) -> tuple[Iterable[Pair | Rejected], str]:
    """Returns what the source yields, and the name under which its size is published."""
    source, root, images = arguments.source, arguments.root, arguments.images
    annotations, split_file, seed = arguments.annotations, arguments.split_file, arguments.seed
    # What is published of the others is the size of their own split.
    published = source if split_file is None or source in _UNSPLIT else ""
    if source == "flickr8k":
        items = read_flickr8k(root, images, annotations, split_file)
    elif source == "flickr30k":
        items = read_flickr30k(root, images, annotations, split_file, seed)
    elif source == "mscoco":
        items = read_coco(root, annotations, split_file, seed)
    elif source == "cuhk_pedes":
        items = read_cuhk_pedes(root, images, annotations, split_file)
    elif source == "table":
        items = read_table(annotations, images or root, split_file, seed)
    elif source == "karpathy":
        contents = load_karpathy(annotations)
        items = read_karpathy(contents, root, split_file)
        published = published and f"karpathy/{karpathy_dataset(contents)}"
    else:
        items = _draw(arguments)
    return items, published


def _draw(arguments: Namespace) -> Iterator[Pair]:
    """Draws scenes once `prepare` asks for them: it then locks out other processes."""
    from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

    out, folder = arguments.out, (arguments.out / "scenes").resolve()
    train, val, test, size = (arguments[name] or usual for name, usual in _SCENES.items())
    refuse_foreign(out, [folder])
    numbers = scene_numbers(train, val, test)
    scenes = draw_scenes(folder, arguments.seed, numbers, size, arguments.workers)
    discard(out)
    yield from scenes


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
    if prepared.doubt:
        logger.warning(prepared.doubt)


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
