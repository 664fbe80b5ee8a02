"""What TensorBoard says of a run before its first step: configuration, data, hyperparameters."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from tf_dpce.config import Config, to_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import shorten


def describe(config: Config, manifest: Manifest, run: str, stage: int) -> list[Summary]:
    """Returns what the tabs Text and HParams show of a stage.

    Args:
        config: configuration of the run.
        manifest: manifest of its data.
        run: name of the run.
        stage: 1 or 2.
    """
    keys = flat(to_dict(config))
    # Runs of one trial would be averaged; a name alone may be that of several folders.
    trial = f"{run} stage {stage}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
    return [
        text_pb("configuration", table({"stage": stage, **keys})),
        text_pb("data", table(flat(_facts(manifest)))),
        # Without a list of them TensorBoard finds which differ, and shows these first; the metrics
        # are then all curves of the same folder.
        hparams_pb({"stage": stage, **keys}, trial_id=trial),
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Returns nested values by the path of their keys, such as `stage1.loss.margin`.

    Example:
        >>> flat({"stage1": {"epochs": 2, "decay_epochs": [1]}, "vectors": None})
        {'stage1.epochs': 2, 'stage1.decay_epochs': '[1]', 'vectors': 'none'}
    """
    found: dict[str, bool | float | str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and key != "lr_multipliers":
            found |= flat(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        else:
            found[name] = "none" if value is None else json.dumps(value)
    return found


def table(values: Mapping[str, Any]) -> str:
    """Returns values by name as a table in Markdown, in which they are no markup."""
    cells = {name: shorten(str(value), 300).replace("`", "'") for name, value in values.items()}
    # A bar would end the cell, also within code.
    rows = [f"| {name} | `{cell.replace('|', '¦')}` |" for name, cell in cells.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _facts(manifest: Manifest) -> dict[str, Any]:
    names = ("source", "seed", "lowercase", "vocabulary_size", "vocabulary_coverage")
    counts = ("images", "captions", "instances")
    splits = {
        split: {name: getattr(info, name) for name in counts}
        for split, info in manifest.splits.items()
    }
    rest = ("rejected", "converted", "split_digest", "vocabulary_sha256")
    return (
        {name: getattr(manifest, name) for name in names}
        | splits
        | {name: getattr(manifest, name) for name in rest}
    )
