"""Metrics on screen and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from tf_dpce.files import write_json

_TITLES = {"image_to_text": "image to text", "text_to_image": "text to image"}
_COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "MedR", "meanr": "MeanR"}


def metrics_path(run: Path, data: Path, split: str, protocol: str, flip: bool = False) -> Path:
    """Returns where the metrics of a run on a split are kept: in the run's own folder."""
    ending = "-flip" if flip else ""
    return run / f"metrics-{data.resolve().name}-{split}-{protocol}{ending}.json"


def save_metrics(path: Path, metrics: dict[str, Any], origin: dict[str, Any]) -> None:
    """Writes metrics as JSON, atomically, with what they were measured on.

    Args:
        path: the file.
        metrics: what `retrieval_metrics` returns.
        origin: the data, split and its digest, protocol, checkpoint and its digest, counts,
            command and date.
    """
    write_json(path, {**metrics, **origin})


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """Returns metrics as a table: one row a direction, recalls in percent."""
    table = Table(title=title, caption=f"rsum {metrics['rsum']:.1f}")
    table.add_column("")
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right")
    for direction, heading in _TITLES.items():
        row = metrics[direction]
        if row is not None:
            table.add_row(heading, *(f"{row[key]:.1f}" for key in _COLUMNS))
    return table
