"""Evaluates a run on a split of prepared data: `python -m pipelines.evaluate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files


def run(
    run: Path,
    data: str,
    split: str = "test",
    protocol: str = "all",
    checkpoint: Literal["best", "last"] = "best",
    flip: bool = False,
    sizes: list[PositiveInt] | None = None,
    float16: bool = False,
    querybank: str = "",
    calibration: bool = False,
) -> None:
    """Evaluates a run on a split of prepared data.

    Args:
        run: run folder.
        data: folder of prepared data; one in an object store is copied into the user's cache once.
        split: train, val or test.
        protocol: all: every image and every caption; coco1k: the mean over five blocks of 1,000
            images; coco5k: 5,000 images with five captions each; cuhk_pedes: captions are queries
            for all images of a person.
        checkpoint: weights.
        flip: encode mirrored images too, as the paper's test does.
        sizes: image sizes in pixels whose features are added (default: the size of training).
        float16: round weights to float16, as `export --float16`.
        querybank: correct for hubs by querybank normalisation (CSLS) with the images and captions
            of another split, such as train.
        calibration: measure the probabilities of hits, too, calibrated on the validation split.
    """
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.evaluation.protocols import check_evaluation, evaluate_split
    from tf_dpce.files import check_writable, sha256_file, write_json
    from tf_dpce.storage import local_folder
    from tf_dpce.training.run_folder import check_run, load_run

    data = local_folder(data)
    digest = Manifest.load(data).split_digest
    check_evaluation(data, split, protocol, querybank, calibration)
    check_run(run, checkpoint)
    check_writable(run)

    from rich.console import Console

    from tf_dpce.data.checksums import explain_damage
    from tf_dpce.drawing.reliability import draw_reliability
    from tf_dpce.evaluation.report import calibration_table, metrics_path, metrics_table
    from tf_dpce.evaluation.tta import TestTimeAugmentation

    trained = load_run(run, checkpoint)
    used = TestTimeAugmentation(flip, tuple(dict.fromkeys(sizes or ())), float16, querybank)
    options = {"data": str(data), "split": split, "protocol": protocol, "checkpoint": checkpoint}
    asked = f"{used.options} --calibration" if calibration else used.options
    shown = " ".join(f"--{name} {value}" for name, value in {"run": run, **options}.items())
    origin = {
        **options,
        **asdict(used),
        "split_digest": digest,
        # Before the long work, because a training that still runs may replace the best checkpoint.
        "checkpoint_sha256": sha256_file(trained.checkpoint),
        "command": f"python -m pipelines.evaluate {shown} {asked}".rstrip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    model, tokenizer, image = trained.model, trained.tokenizer, trained.config.image
    with explain_damage(data):
        metrics = evaluate_split(
            model,
            tokenizer,
            image,
            data,
            split,
            protocol,
            augmentation=used,
            calibration=calibration,
        )
    path = metrics_path(run, data, split, protocol, digest, used, checkpoint)
    write_json(path, {**metrics, **origin})
    Console().print(metrics_table(metrics, f"{run} on {data}, {split}, {protocol}", digest))
    files = [path]
    if calibration:
        Console().print(calibration_table(metrics["calibration"]))
        figure = path.with_name(path.name.replace("metrics-", "reliability-", 1))
        files.append(draw_reliability(metrics["calibration"], figure.with_suffix(".png")))
    say_files(files)


build_parser, main = options_verb("evaluate", run)


if __name__ == "__main__":
    sys.exit(main())
