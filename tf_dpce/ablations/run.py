"""Trains and scores every variant of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from tf_dpce.ablations.variants import SPLIT, Question, text_parameters, trained_stages
from tf_dpce.config import Config, to_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.files import exclusive_lock, read_json, write_json
from tf_dpce.logging import logger, tracked
from tf_dpce.machine import circumstances
from tf_dpce.training.callbacks import HISTORY_FILE, read_history
from tf_dpce.training.run_folder import load_run
from tf_dpce.training.train import train

RESULTS_FILE = "ablation.json"


def run_ablation(
    question: Question, data: Path, others: Sequence[Path], out: Path, command: str
) -> dict[str, Any]:
    """Trains and scores every variant of a question that is not finished yet.

    All variants train for the same number of epochs. They are scored with their last weights: the
    best epoch would be chosen by the images that score, and could be one of the first stage.

    Args:
        question: the question and the user's settings.
        data: folder of prepared data.
        others: folders of further prepared data, for the question `transfer` alone.
        out: folder to make, or to continue in if the same question was interrupted there.
        command: command line, which is kept beside the results.

    Returns:
        What `ablation.json` holds: the settings, and by variant its configuration, parameters,
        epochs, seconds and metrics.

    Raises:
        UserError: whatever the user can mend.
    """
    sources = (data, *others)
    plan = _plan(question, sources)
    asked = {
        "question": asdict(question),
        "data": {str(source): Manifest.load(source).split_digest for source in sources},
        "variants": {name: {"config": to_dict(config)} for name, (config, _) in plan.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out):
        results = _begun(out, asked) or {**asked, "command": command, **circumstances()}
        variants = tracked(plan.items(), f"variants of {question.name}", len(plan))
        for name, (config, source) in variants:
            entry = results["variants"][name]
            if "metrics" in entry:
                logger.info(f"{name}: finished before")
                continue
            write_json(out / RESULTS_FILE, results)
            logger.info(f"{name}:")
            # Otherwise names of layers and seeds would depend on the variants before.
            keras.utils.clear_session()
            train(config, source, out / name, resume=(out / name).exists())
            targets = sources if question.name == "transfer" else (source,)
            entry |= _scores(out / name, targets)
        write_json(out / RESULTS_FILE, results)
    return results


def curve(run: Path) -> list[tuple[int, float]]:
    """Returns (epochs so far, rsum) of each validation of a run."""
    rows = read_history(run / HISTORY_FILE, before=(3, 0))
    return [(n, float(row["val_rsum"])) for n, row in enumerate(rows, 1) if row["val_rsum"]]


def _plan(question: Question, sources: Sequence[Path]) -> dict[str, tuple[Config, Path]]:
    """Returns the configuration of each variant and the data that it trains on."""
    question.check_sources(sources)
    variants = question.variants()
    if question.name != "transfer":
        return {name: (config, sources[0]) for name, config in variants.items()}
    (config,) = variants.values()
    return {source.resolve().name: (config, source) for source in sources}


def _begun(out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the results of the same question that was interrupted in this folder."""
    path = out / RESULTS_FILE
    if not path.exists():
        if any(file for file in out.iterdir() if not file.name.startswith(".")):
            raise UserError(
                "ablation.folder", f"{out} holds something else: give another --out", out
            )
        return None
    saved = read_json(path)
    known = {name: {"config": entry["config"]} for name, entry in saved["variants"].items()}
    if {**saved, "variants": known} != {**saved, **asked}:
        message = f"{path} was begun with other options or data: give the same, or another --out"
        raise UserError("ablation.differs", message, path)
    return saved


def _scores(run: Path, targets: Sequence[Path]) -> dict[str, Any]:
    loaded = load_run(run, "last")
    model, history = loaded.model, read_history(run / HISTORY_FILE, before=(3, 0))
    seconds = [float(r["epoch_seconds"]) - float(r["validation_seconds"] or 0) for r in history]
    known = model, loaded.tokenizer, loaded.config.image
    return {
        "text_parameters": text_parameters(model.text_tower),
        "epochs": [loaded.config.stage(n).epochs for n in trained_stages(loaded.config)],
        "seconds": round(sum(seconds), 1),
        "metrics": {t.resolve().name: evaluate_split(*known, t, SPLIT) for t in targets},
    }
