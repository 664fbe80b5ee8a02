"""examples/quickstart.ipynb runs from its first cell to its last, and shows what it found."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

MOST_BYTES = 300_000


def images(cells: list[nbformat.NotebookNode]) -> list[int]:
    """Returns how many images each cell shows."""
    return [
        sum("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
        for cell in cells
    ]


@pytest.mark.process
def test_the_quickstart_runs_and_shows_its_images(project_root: Path):
    path = project_root / "examples" / "quickstart.ipynb"
    assert path.stat().st_size < MOST_BYTES
    saved = nbformat.read(path, as_version=4).cells
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    where = {"metadata": {"path": str(path.parent)}}
    # A cell that raises ends the run with its error.
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    # A scene, the curves of recall and the contact sheet.
    assert images(saved) == images(notebook.cells) and sum(images(saved)) == 3
    assert all(cell.get("outputs") for cell in saved if "main(" in cell.source)
    texts = [
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    ]
    assert any(text.startswith("1 0.") for text in texts), "the search has a best hit"
