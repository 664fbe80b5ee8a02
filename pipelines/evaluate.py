"""Evaluates a run on a split of prepared data: `python -m pipelines.evaluate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files

if TYPE_CHECKING:
    from tf_dpce.evaluation.html_report.learning import Curves, Epoch
    from tf_dpce.evaluation.tta import TestTimeAugmentation
    from tf_dpce.training.run_folder import Run


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
    report: Path | None = None,
    learning_curve: Path | None = None,
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
        report: new folder for a report: a page, report.html, and its figures as PNG and CSV.
        learning_curve: CSV for the report: rsum by images of training data, with the columns
            images, seed, rsum and perhaps name, as examples/learning_curve.py writes it.
    """
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.evaluation.protocols import check_evaluation
    from tf_dpce.evaluation.tta import TestTimeAugmentation
    from tf_dpce.files import check_writable, write_json
    from tf_dpce.storage import local_folder
    from tf_dpce.training.run_folder import check_run, load_run

    data = local_folder(data)
    digest = Manifest.load(data).split_digest
    check_evaluation(data, split, protocol, querybank, calibration)
    check_run(run, checkpoint)
    check_writable(run)
    curve = _check_report(report, learning_curve)
    used = TestTimeAugmentation(flip, tuple(dict.fromkeys(sizes or ())), float16, querybank)
    options = {"data": str(data), "split": split, "protocol": protocol, "checkpoint": checkpoint}

    from rich.console import Console

    from tf_dpce.data.checksums import explain_damage
    from tf_dpce.evaluation.embed import SplitEncoder
    from tf_dpce.evaluation.embedded_split import embed_split, score_split
    from tf_dpce.evaluation.report import metrics_path, metrics_table

    trained = load_run(run, checkpoint)
    # Both before the long work: a training that still runs may replace the best checkpoint.
    origin = {"split_digest": digest, **_origin(trained, options, used, calibration)}
    epochs = _epochs(run) if report else []
    encoder = SplitEncoder(trained.model, trained.tokenizer, trained.config.image, used)
    with explain_damage(data):
        embedded = embed_split(encoder, data, split, protocol)
        metrics = score_split(embedded, protocol, calibration)
    path = metrics_path(run, data, split, protocol, digest, used, checkpoint)
    write_json(path, {**metrics, **origin})
    Console().print(metrics_table(metrics, f"{run} on {data}, {split}, {protocol}", digest))
    files = [path]
    if calibration:
        files.append(_show_calibration(metrics["calibration"], path))
    if report:
        from tf_dpce.evaluation.html_report.write import write_report

        named = {**metrics, **origin, "run": run.resolve().name}
        with explain_damage(data):
            trained_on = trained.provenance["split_digest"]
            files += write_report(report, embedded, named, epochs, trained_on, curve)
    say_files(files)


def _origin(
    trained: Run, options: dict[str, str], used: TestTimeAugmentation, calibration: bool
) -> dict[str, Any]:
    """Returns how a measurement was made, which its file holds beside the metrics."""
    from tf_dpce.files import sha256_file

    shown = {"run": trained.folder, **options}
    words = [f"--{name} {value}" for name, value in shown.items()]
    words += [used.options] if used.options else []
    words += ["--calibration"] if calibration else []
    return {
        **options,
        **asdict(used),
        "checkpoint_sha256": sha256_file(trained.checkpoint),
        "command": f"python -m pipelines.evaluate {' '.join(words)}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _epochs(run: Path) -> list[Epoch]:
    from tf_dpce.evaluation.html_report.learning import read_epochs
    from tf_dpce.training.callbacks import HISTORY_FILE, read_history

    history = run / HISTORY_FILE
    return read_epochs(read_history(history, before=(3, 0)), history)


def _show_calibration(measured: dict[str, Any], metrics: Path) -> Path:
    """Prints the probabilities of hits, and draws them beside a metrics file."""
    from rich.console import Console

    from tf_dpce.drawing.reliability import draw_reliability
    from tf_dpce.evaluation.report import calibration_table

    Console().print(calibration_table(measured))
    figure = metrics.with_name(metrics.name.replace("metrics-", "reliability-", 1))
    return draw_reliability(measured, figure.with_suffix(".png"))


def _check_report(report: Path | None, learning_curve: Path | None) -> Curves | None:
    """Refuses, before any work, what a report cannot be written into or made of."""
    from tf_dpce.errors import UserError
    from tf_dpce.files import check_writable

    if report is None:
        if learning_curve:
            raise UserError("report.folder", "--learning-curve is shown in a report: give --report")
        return None

    from tf_dpce.evaluation.html_report.learning import read_learning_curve

    check_writable(report)
    if report.is_dir() and any(report.iterdir()):
        message = f"{report} is not empty: give --report another folder, or remove this one"
        raise UserError("report.folder", message, report)
    return read_learning_curve(learning_curve) if learning_curve else None


build_parser, main = options_verb("evaluate", run)


if __name__ == "__main__":
    sys.exit(main())
