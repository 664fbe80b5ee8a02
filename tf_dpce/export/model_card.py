"""The card of an exported model: what it is, where it comes from and what it cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tf_dpce.config import TextConfig
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, CALIBRATION_FOLDER, Calibration
from tf_dpce.evaluation.report import metrics_rows, short_digest
from tf_dpce.evaluation.tta import TestTimeAugmentation
from tf_dpce.export.expansion import EXPANSION
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.files import read_json, sha256_file, sha256_lines
from tf_dpce.preprocessing import status
from tf_dpce.templates import read_template
from tf_dpce.training.callbacks import HISTORY_FILE, read_history
from tf_dpce.training.run_folder import TEACHER_DIGEST, Run, read_sources


def model_card(
    name: str,
    module: ServingModule,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibration: Calibration | None = None,
) -> str:
    """Composes the card, in Markdown.

    Args:
        name: the name of the model.
        module: what is exported.
        provenance: what is known of data, seed and settings.
        metrics: by a name of the measurement, what `evaluate_split` returned, and the digest of
            the split that it was measured on, under `split_digest`.
        calibration: what gives hits their probabilities.
    """
    headings, results = _results(metrics) if metrics else ((), [])
    return read_template(__package__, "model_card.md").render(
        name=name,
        module=module,
        tokenizer=module.tokenizer,
        model=_model_rows(module),
        provenance=provenance,
        results=results,
        result_headings=headings,
        calibration=calibration,
        calibration_file=f"{CALIBRATION_FOLDER}/{CALIBRATION_FILE}",
        status=status,
        vocabulary_digest=sha256_lines(module.tokenizer.words),
        table=_table,
    )


def run_provenance(run: Run, checkpoint: str, augmentation: TestTimeAugmentation) -> dict[str, Any]:
    """Returns what a run knows of its towers, data, settings and seed, and its augmentation."""
    config, data, sources = run.config, run.provenance, read_sources(run.folder)
    digests, splits = sources.get("files", {}), sources.get("splits", {})
    counted = (f"{name} {each['images']:,}, {each['captions']:,}" for name, each in splits.items())
    return {
        "run": run.folder.resolve().name,
        "weights": f"{checkpoint} of the run, {run.checkpoint.name}",
        "weights SHA-256": sha256_file(run.checkpoint),
        "image tower": f"{config.image.backbone}, weights {_file(config.weights, digests)}",
        "trained on": f"{config.image.input_size} x {config.image.input_size} pixels",
        "images are seen": "from both sides" if augmentation.flip else "from one side",
        "weights are stored": "in float16" if augmentation.float16 else "in float32",
        "text tower": f"{config.text.tower}, {_layers(config.text)}",
        "vocabulary": "words of the training captions"
        + (", and words of word vectors" if EXPANSION in data else " alone"),
        "word vectors": ", ".join(_file(path, digests) for path in config.vectors or ())
        or "from random",
        "teacher": _teacher(config.teacher, data),
        "training data": data["source"],
        "images and captions": "; ".join(counted) or "not recorded",
        "training instances": f"{data['num_instances']:,}",
        "split digest": data["split_digest"],
        "seed": config.seed,
        **{name: data[name] for name in (EXPANSION,) if name in data},
        **_schedule(run),
    }


def _teacher(path: str | None, data: Mapping[str, Any]) -> str:
    """Returns the name of a teacher's embeddings and their digest."""
    return _file(path, {Path(path).name: data[TEACHER_DIGEST]}) if path else "none"


def _schedule(run: Run) -> dict[str, str]:
    """Returns what each stage of a run did; of a stage without a history nothing is known."""
    history = read_history(run.folder / HISTORY_FILE, before=(3, 0))
    epochs = Counter(int(row["stage"]) for row in history)
    return {
        f"stage {number}": f"{done} of {stage.epochs} epochs, batches of {stage.batch_size}, "
        f"{stage.optimizer}, learning rate {stage.learning_rate:g} ({stage.schedule}, warm-up "
        f"{stage.warmup_epochs:g}), weight decay {stage.weight_decay:g}, backbone "
        f"{stage.backbone}, losses: image instance {stage.loss.image_instance:g}, text instance "
        f"{stage.loss.text_instance:g}, {stage.loss.pair_loss} {stage.loss.pair:g}, distillation "
        f"{stage.loss.distillation or 0:g}"
        for number, done in sorted(epochs.items())
        for stage in [run.config.stage(number)]
    }


def _layers(text: TextConfig) -> str:
    named = "blocks" if text.tower == "convolutional" else "widths"
    return f"{named} {list(getattr(text, named))}"


def run_metrics(run: Run, checkpoint: str, augmentation: TestTimeAugmentation) -> dict[str, Any]:
    """Returns what `evaluate` measured with a run's weights, augmented so, by metrics file."""
    # The checkpoint's name is not enough: as training goes on, another file becomes the best one.
    weights = (checkpoint, sha256_file(run.checkpoint))
    found = {}
    for path in sorted(run.folder.glob("metrics-*.json")):
        metrics = read_json(path)
        measured = (metrics["checkpoint"], metrics["checkpoint_sha256"])
        if augmentation.was_used(metrics) and measured == weights:
            found[path.stem.removeprefix("metrics-")] = metrics
    return found


def _model_rows(module: ServingModule) -> Iterable[tuple[str, object]]:
    inferred = module.tokenizer.inferred
    words = module.tokenizer.words[: len(module.tokenizer.words) - inferred]
    yield "embedding", f"{module.dimension} numbers"
    yield "image", f"{module.image_size} x {module.image_size} pixels"
    yield "parameters of the image tower", f"{module.model.image_tower.count_params():,}"
    yield "parameters of the text tower", f"{module.model.text_tower.count_params():,}"
    yield "caption", f"{module.tokenizer.max_length} known {module.tokenizer.unit} at most"
    yield "vocabulary", f"{len(words):,} {module.tokenizer.unit}"
    if module.tokenizer.kind == "characters":
        yield "scripts without spaces", "split into characters"
    if inferred:
        yield "words understood by their vectors, never trained", f"{inferred:,}, in float16"
    yield "made with", ", ".join(f"{p} {version(p)}" for p in ("tensorflow", "keras"))


def _results(metrics: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    headings, rows = metrics_rows(metrics)
    more = {
        name: [short_digest(found.get("split_digest", "")), found.get("protocol", "")]
        for name, found in metrics.items()
    }
    heads = ("measured on", "direction", *headings, "split digest", "protocol")
    return heads, [[*row, *more[row[0]]] for row in rows]


def _table(rows: Iterable[Sequence[object]], headings: Sequence[str] = ("", "")) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _file(path: str, digests: Mapping[str, str]) -> str:
    """Returns the name of a file and its digest; its folder is private to who trained."""
    name = Path(path).name
    return f"{name} (SHA-256 {digests[name]})" if name in digests else name
