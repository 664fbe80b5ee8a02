"""A run folder of weights that were trained elsewhere, such as under another Keras backend."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

from tf_dpce.config import Config, to_dict
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import publish_folder, remove_stale, write_json
from tf_dpce.training.checkpoint import Progress, best_path, save_checkpoint
from tf_dpce.training.checks import check_vocabulary
from tf_dpce.training.run_folder import CONFIG_FILE, provenance, run_digest, write_sources


def run_from_weights(config: Config, data: Path, run: Path, weights: Path) -> None:
    """Writes a run folder; it is there whole, or not at all.

    Args:
        config: configuration that the weights were trained with.
        data: folder of the prepared data that they were trained on.
        run: folder to make.
        weights: `.weights.h5` file that `save_weights` of the model wrote, without an optimizer.

    Raises:
        UserError: the folder exists, or the weights are not those of this model.
    """
    manifest = Manifest.load(data)
    check_vocabulary(data, manifest)
    if run.exists():
        message = f"{run} exists already: choose another --run"
        raise UserError("file.exists", message, run)
    if not weights.is_file():
        message = f"{weights} does not exist: give a file that save_weights of the model wrote"
        raise UserError("run.weights", message, weights)

    from tf_dpce.models.build import build_model

    saved = {"config": to_dict(config), "data": provenance(manifest)}
    model = build_model(
        replace(config, weights="none"),
        manifest.vocabulary_size,
        manifest.splits["train"].instances,
    )
    try:
        with warnings.catch_warnings():
            # Keras only warns if layers are missing in the file, and would leave them random.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(weights)
    except (OSError, ValueError, UserWarning) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "run.weights",
            f"{weights} does not hold the weights of this model ({reason}): give the preset, the "
            "options and the --data that it was trained with",
            weights,
        ) from None
    number = 2 if config.stage2.epochs else 1
    run.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(run.parent)
    with publish_folder(run) as folder:
        write_json(folder / CONFIG_FILE, saved)
        write_sources(folder, manifest, config)
        shutil.copyfile(data / VOCABULARY_FILE, folder / VOCABULARY_FILE)
        path = best_path(folder, number)
        path.parent.mkdir()
        progress = Progress(number, config.stage(number).epochs, 0, 0.0, run_digest(folder))
        save_checkpoint(path, model.variables, progress)
