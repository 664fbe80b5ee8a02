"""`prepare`: from photographs and captions on disk to shards that training reads."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import progress, run_verb, say_files, verb_parser
from tf_dpce.data.manifest import REJECTED_FILE, discard, refuse_foreign
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.datasets.expected_sizes import differences
from tf_dpce.datasets.flickr8k import read_flickr8k
from tf_dpce.datasets.flickr30k import read_flickr30k
from tf_dpce.datasets.karpathy import karpathy_dataset, load_karpathy, read_karpathy
from tf_dpce.datasets.mscoco import read_mscoco
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.table import read_table

if TYPE_CHECKING:
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.data.prepare import Prepared

# What only scenes take, with what is drawn unless told.
_SCENES = {"train_images": 16_000, "val_images": 500, "test_images": 500, "image_size": 64}
# What each source needs, and what else it takes.
_OPTIONS = {
    "scenes": ((), tuple(_SCENES)),
    "flickr8k": (("root",), ("images", "annotations", "split_file")),
    "flickr30k": (("root",), ("images", "annotations", "split_file")),
    "karpathy": (("root", "annotations"), ("split_file",)),
    "mscoco": (("root",), ("annotations", "split_file")),
    "cuhk_pedes": (("root",), ("images", "annotations", "split_file")),
    "table": (("annotations",), ("root", "images", "split_file")),
}
# Those that come without a split of their own, and are split alike in size by all who use them.
_UNSPLIT = ("flickr30k", "mscoco")


def build_parser() -> ArgumentParser:
    """Returns the parser of this verb."""
    parser = verb_parser("prepare", "Decodes every image once and writes shards for training.")
    parser.add_argument("--source", choices=list(_OPTIONS), required=True, help="what to read")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--root", type=Path, help="folder of the data set; karpathy: of images")
    parser.add_argument("--images", type=Path, help="folder of images, where it is another")
    parser.add_argument(
        "--annotations", type=Path, help="file of captions; flickr8k, mscoco: folder of such files"
    )
    parser.add_argument(
        "--split-file", type=Path, help="lines of image<TAB>split, before any other split"
    )
    parser.add_argument(
        "--workers", type=PositiveInt, default=os.cpu_count(), help="threads; processes that draw"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order, split and scenes")
    parser.add_argument("--lowercase", action="store_true", help="lower-case all captions")
    parser.add_argument("--vectors", type=Path, help="keep only words with a vector in this file")
    _add_scenes(parser)
    return parser


def run(arguments: Namespace) -> None:
    """Reads, checks and writes; says what was kept and what was refused."""
    _check_usage(arguments)
    items, published = _read(arguments)
    from tf_dpce.data.prepare import prepare

    with _late_progress("images") as report:
        prepared = prepare(
            items,
            arguments.out,
            source=arguments.source,
            seed=arguments.seed,
            lowercase=arguments.lowercase,
            vectors=arguments.vectors,
            workers=arguments.workers,
            progress=report,
        )
    _say(prepared)
    _say_differences(prepared, published, given=arguments.split_file is not None)
    # A table's split is its owner's affair; on these, others compare themselves.
    if arguments.source in _UNSPLIT and arguments.split_file is None:
        print(f"split drawn by --seed {arguments.seed}; --split-file takes a published one")
    say_files(prepared.files)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


def _add_scenes(parser: ArgumentParser) -> None:
    """Adds what only drawn scenes take; a default would hide whether it was given."""
    for option, meaning in (
        ("train_images", "scenes to train on"),
        ("val_images", "to validate on"),
        ("test_images", "to test on"),
        ("image_size", "side of a scene in pixels"),
    ):
        name, usual = f"--{option.replace('_', '-')}", _SCENES[option]
        parser.add_argument(name, type=PositiveInt, help=f"scenes: {meaning} (default: {usual})")


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
    source, split_file = arguments.source, arguments.split_file
    if source == "karpathy":
        listed = load_karpathy(arguments.annotations)
        items = read_karpathy(listed, arguments.root, split_file)
        source = f"karpathy/{karpathy_dataset(listed)}"
    else:
        items = _items(arguments)
    # What is published of these is the size of their own split.
    own_split = split_file is None or source in _UNSPLIT
    return items, source if own_split else ""


def _items(arguments: Namespace) -> Iterable[Pair | Rejected]:
    root, images, annotations = arguments.root, arguments.images, arguments.annotations
    split_file, seed = arguments.split_file, arguments.seed
    if arguments.source == "flickr8k":
        return read_flickr8k(root, images, annotations, split_file)
    if arguments.source == "flickr30k":
        return read_flickr30k(root, images, annotations, split_file, seed)
    if arguments.source == "mscoco":
        return read_mscoco(root, annotations, split_file, seed)
    if arguments.source == "cuhk_pedes":
        return read_cuhk_pedes(root, images, annotations, split_file)
    if arguments.source == "table":
        return read_table(annotations, images or root, split_file, seed)
    return _draw(arguments)


def _draw(arguments: Namespace) -> Iterator[Pair]:
    """Draws, but not before `prepare` asks: it then keeps other processes from the folder."""
    from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

    out, folder = arguments.out, (arguments.out / "scenes").resolve()
    train, val, test, size = (arguments[name] or usual for name, usual in _SCENES.items())
    numbers = scene_numbers(train, val, test)
    refuse_foreign(out, [folder])
    with progress("scenes") as report:
        scenes = draw_scenes(folder, arguments.seed, numbers, size, report, arguments.workers)
        discard(out)
        yield from scenes


@contextmanager
def _late_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what `progress` does, but the bar begins with the first report: others come first."""
    with ExitStack() as stack:
        bars: list[Callable[[int, int], None]] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress(description)))
            bars[0](done, total)

        yield report


def _say(prepared: Prepared) -> None:
    from tf_dpce.data.caption_lengths import describe_lengths

    manifest = prepared.manifest
    for name, split in manifest.splits.items():
        print(f"{name:<6}{split.images:>8,} images{split.captions:>10,} captions", end="")
        print(f"{split.instances:>8,} instances{len(split.shards):>4} shards")
    kept = sum(split.images for split in manifest.splits.values())
    captions = sum(split.captions for split in manifest.splits.values())
    reasons = Counter(item.reason for item in prepared.rejected).most_common()
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    print(f"kept {kept:,} images with {captions:,} captions")
    print(f"rejected {len(prepared.rejected):,}" + (f": {why}" if why else ""))
    if manifest.bitmaps:
        print(f"{manifest.bitmaps:,} BMP images stored as PNG")
    _say_lone_instances(manifest)
    print(
        f"vocabulary of {manifest.vocabulary_size:,} words, "
        f"{100 * manifest.vocabulary_coverage:.1f} % of the training captions' words"
    )
    print(describe_lengths(manifest.caption_lengths))
    if prepared.doubt:
        print(f"warning: {prepared.doubt}")


def _say_lone_instances(manifest: Manifest) -> None:
    """Says of how many persons there is one image, where images are not all alone."""
    splits = manifest.splits
    if any(split.lone_instances or split.instances < split.images for split in splits.values()):
        counts = (f"{name} {split.lone_instances:,}" for name, split in splits.items())
        print(f"instances with one image: {', '.join(counts)}")


def _say_differences(prepared: Prepared, published: str, given: bool) -> None:
    """Says where the size is not the published one; a difference is no failure."""
    splits = prepared.manifest.splits
    images = {name: split.images for name, split in splits.items()}
    see = REJECTED_FILE if prepared.rejected else ""
    for line in differences(published, images, splits["train"].instances, see, given):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
