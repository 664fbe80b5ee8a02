"""Where an exported model comes from, as far as its run knows: for the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_dpce.evaluation.tta import PLAIN, TestTimeAugmentation
from tf_dpce.files import read_json, sha256_file
from tf_dpce.training.run_folder import Run


def run_provenance(
    run: Run, checkpoint: str, augmentation: TestTimeAugmentation = PLAIN
) -> dict[str, Any]:
    """Returns what the run knows of its towers, data, settings and seed, and its augmentation."""
    config, data = run.config, run.provenance
    return {
        "run": run.folder.resolve().name,
        "checkpoint": checkpoint,
        "image tower": f"{config.image.backbone}, weights {_name(config.weights)}",
        "trained on": f"{config.image.input_size} x {config.image.input_size} pixels",
        "images are seen": "from both sides" if augmentation.flip else "from one side",
        "weights are stored": "in float16" if augmentation.float16 else "in float32",
        "text tower": f"{config.text.tower}, blocks {list(config.text.blocks)}",
        "word vectors": _name(config.vectors or "from random"),
        "training data": data["source"],
        "training instances": f"{data['num_instances']:,}",
        "split digest": data["split_digest"],
        "seed": config.seed,
    }


def run_metrics(
    run: Run, checkpoint: str, augmentation: TestTimeAugmentation = PLAIN
) -> dict[str, Any]:
    """Returns what `evaluate` measured with these weights, augmented so, by metrics file."""
    # The checkpoint's name is not enough: as training goes on, another file becomes the best one.
    weights = (checkpoint, sha256_file(run.checkpoint))
    found = {}
    for path in sorted(run.folder.glob("metrics-*.json")):
        metrics = read_json(path)
        measured = (metrics["checkpoint"], metrics["checkpoint_sha256"])
        if augmentation.was_used(metrics) and measured == weights:
            found[path.stem.removeprefix("metrics-")] = metrics
    return found


def _name(file: str) -> str:
    """Returns the name of a file; its folder is private to who trained."""
    return Path(file).name
