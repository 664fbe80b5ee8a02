"""A bundle that was fitted -> a run, which `evaluate`, `export` and `embed` take as any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tf_dpce.data.manifest import VOCABULARY_FILE
from tf_dpce.errors import UserError
from tf_dpce.files import publish_folder, remove_stale, sha256_file, write_json
from tf_dpce.offload.bundle import Bundle, load_weights, told_of_writing
from tf_dpce.offload.fit import bare_model
from tf_dpce.training.checkpoint import Progress, checkpoint_path, save_checkpoint
from tf_dpce.training.history import HISTORY_FILE
from tf_dpce.training.run_folder import CONFIG_FILE, run_digest


def unpack(bundle: Bundle, run: Path) -> None:
    """Writes the run folder of a bundle; it is there whole, or not at all.

    Args:
        bundle: whose stages are all fitted.
        run: folder to make.

    Raises:
        UserError: the bundle is not fitted or damaged, or the folder exists.
    """
    if run.exists():
        raise UserError(f"{run} exists already: choose another --run, or remove it")
    fitted = _checked(bundle)
    model = bare_model(bundle.config, bundle)
    saved = {key: bundle.saved[key] for key in ("config", "data")}
    fitted_by = {key: fitted[key] for key in ("backend", "device")}
    with told_of_writing(run, "make room there, or choose another --run"):
        run.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(run.parent)
        with publish_folder(run) as folder:
            for name in (VOCABULARY_FILE, HISTORY_FILE):
                shutil.copyfile(bundle.folder / name, folder / name)
            write_json(folder / CONFIG_FILE, {**saved, "fitted": fitted_by})
            for number in bundle.stages:
                stage = fitted["stages"][str(number)]
                load_weights(model, bundle.weights_path(number), stage["sha256"])
                progress = Progress(
                    number, stage["epoch"], 0, stage["val_rsum"], run_digest(folder)
                )
                path = checkpoint_path(folder, number, "best")
                save_checkpoint(path, model.variables, progress)


def _checked(bundle: Bundle) -> dict[str, Any]:
    fitted = bundle.fitted()
    missing = [str(n) for n in bundle.stages if str(n) not in fitted["stages"]]
    if missing:
        raise UserError(
            f"{bundle.folder} is not fitted: stage {' and '.join(missing)} is missing: run "
            "`offload fit` to its end, and copy the whole folder back"
        )
    for name in (VOCABULARY_FILE, HISTORY_FILE):
        if not (bundle.folder / name).is_file():
            raise UserError(f"{bundle.folder / name} does not exist: copy the whole bundle back")
    digest = sha256_file(bundle.folder / VOCABULARY_FILE)
    if digest != bundle.saved["data"]["vocabulary_sha256"]:
        raise UserError(f"{bundle.folder / VOCABULARY_FILE} is not the bundle's: put it back")
    return fitted
