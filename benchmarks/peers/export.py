"""An exported model of random weights, which all sides of a pair share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tf_dpce.config import Config, from_dict, preset_values

WORDS = 7_400


def export_config(preset: str) -> Config:
    """Returns the configuration of a preset."""
    return from_dict(preset_values(preset))


def write_export(folder: Path, preset: str, formats: Sequence[str] = ()) -> Path:
    """Exports the towers of a preset, also for other runtimes, and returns the version.

    Args:
        folder: shared by the sides.
        preset: its name.
        formats: names of runtimes.
    """
    from benchmarks.material import random_model, random_tokenizer
    from tf_dpce.export.publish import write_version
    from tf_dpce.export.serving_module import ServingModule
    from tf_dpce.runtimes.write import write_runtimes

    config, version = export_config(preset), folder / "model" / "1"
    model, tokenizer = random_model(config, WORDS, classes=2), random_tokenizer(config, WORDS)
    module = ServingModule(model, tokenizer, config.image.resize)
    version.mkdir(parents=True)
    more = (lambda *where: write_runtimes(*where, formats)) if formats else None
    write_version(module, version, "random", more=more)
    return version
