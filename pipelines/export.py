"""Publishes a run for TF Serving: `python -m pipelines.export`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.preprocessing.status import MAX_BYTES, MAX_PIXELS, Limits


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser(
        "export", "Exports a run, verifies it in a fresh process and publishes it as a new version."
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--to", type=Path, required=True, help="model folder, saved_models/NAME")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="weights")
    parser.add_argument(
        "--flip", action="store_true", help="encode mirrored images too: twice the work"
    )
    parser.add_argument(
        "--size", type=PositiveInt, help="image size in pixels (default: the size of training)"
    )
    parser.add_argument(
        "--float16", action="store_true", help="store weights in float16: half the size on disk"
    )
    parser.add_argument(
        "--max-bytes", type=PositiveInt, default=MAX_BYTES, help="reject larger files"
    )
    parser.add_argument(
        "--max-pixels", type=PositiveInt, default=MAX_PIXELS, help="reject larger images"
    )
    return parser


def run(arguments: Namespace) -> None:
    """Exports, verifies, publishes and prints the files."""
    from tf_dpce.evaluation.tta import TestTimeAugmentation, augmented_model
    from tf_dpce.export.model_card import run_metrics, run_provenance
    from tf_dpce.export.publish import export_model
    from tf_dpce.export.versions import check_name
    from tf_dpce.training.run_folder import load_run

    check_name(arguments.to)
    trained = load_run(arguments.run, arguments.checkpoint)
    sizes = (arguments.size,) if arguments.size else ()
    augmentation = TestTimeAugmentation(arguments.flip, sizes, arguments.float16)
    version = export_model(
        augmented_model(trained.model, trained.config.image.backbone, augmentation),
        trained.tokenizer,
        arguments.to,
        provenance=run_provenance(trained, arguments.checkpoint, augmentation),
        metrics=run_metrics(trained, arguments.checkpoint, augmentation),
        resize=trained.config.image.resize,
        limits=Limits(arguments.max_bytes, arguments.max_pixels),
    )
    say_files(sorted(path for path in version.rglob("*") if path.is_file()))


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
