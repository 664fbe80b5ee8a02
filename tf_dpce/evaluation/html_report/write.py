"""Writes a report into a folder: `report.html`, and every figure as PNG and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tf_dpce.evaluation.embedded_split import EmbeddedSplit
from tf_dpce.evaluation.html_report.learning import Curves, Epoch
from tf_dpce.evaluation.html_report.page import Report
from tf_dpce.files import publish_folder

PAGE_FILE = "report.html"


def write_report(
    folder: Path,
    embedded: EmbeddedSplit,
    metrics: Mapping[str, Any],
    epochs: Sequence[Epoch],
    trained_on: object,
    curve: Curves | None = None,
) -> list[Path]:
    """Writes the report of an evaluation.

    Args:
        folder: the folder to make; if it exists it is empty.
        embedded: the split that was evaluated.
        metrics: what the metrics file holds, and `run`, the name of the run.
        epochs: the epochs of the run.
        trained_on: digest of the split that the run was trained on.
        curve: what `learning.read_learning_curve` returns, if that was measured.

    Returns:
        The files, `report.html` first.

    Raises:
        UserError: the folder exists and is not empty.
    """
    report = Report(embedded, metrics, epochs, trained_on, curve)
    page = report.html()
    # What cannot be removed is no empty folder, and will be refused.
    with suppress(OSError):
        folder.rmdir()
    with publish_folder(folder) as temporary:
        files = [PAGE_FILE]
        # A folder's name need not be UTF-8.
        (temporary / PAGE_FILE).write_text(page, encoding="utf-8", errors="replace")
        for chart in report.charts:
            (temporary / f"{chart.name}.png").write_bytes(chart.png())
            (temporary / f"{chart.name}.csv").write_text(chart.csv(), encoding="utf-8")
            files += [f"{chart.name}.png", f"{chart.name}.csv"]
    return [folder / name for name in files]
