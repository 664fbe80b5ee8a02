"""Metrics on screen and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from tf_dpce.errors import UserError
from tf_dpce.evaluation.metrics import wilson_interval
from tf_dpce.evaluation.tta import PLAIN, TestTimeAugmentation
from tf_dpce.files import read_json

TITLES = {"image_to_text": "image to text", "text_to_image": "text to image"}
_HEADINGS = {
    **{"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "MedR", "meanr": "MeanR"},
    **{"map": "mAP", "minp": "mINP"},
}
# Images from which a 95 % interval of R@1 is at most 20 points wide.
_MANY_IMAGES = 100
# Of a digest, on screen and in the name of a file.
_DIGITS, _DIGITS_OF_NAME = 12, 8


def metrics_path(
    run: Path,
    data: Path,
    split: str,
    protocol: str,
    split_digest: str = "",
    augmentation: TestTimeAugmentation = PLAIN,
    checkpoint: str = "best",
) -> Path:
    """Returns the metrics file of a run on a split, in the run's own folder.

    The checkpoint `last` has a file of its own beside that of `best`, which is exported. Two
    folders of data may have the same name: if the file has the metrics of another split, they must
    not be lost, and the name of the new one ends in the beginning of `split_digest`. Without it the
    file is that of the only folder of this name.
    """
    parts = (data.resolve().name, split, protocol, augmentation.name, checkpoint)
    name = "-".join(part for part in parts if part not in ("", "best"))
    path = run / f"metrics-{name}.json"
    try:
        earlier = read_json(path)["split_digest"] if path.exists() else ""
    except (UserError, KeyError, TypeError):
        # A damaged file, or one of something else, holds nothing worth keeping.
        return path
    if "" in (earlier, split_digest) or earlier == split_digest:
        return path
    return path.with_name(f"{path.stem}-{split_digest[:_DIGITS_OF_NAME]}.json")


def short_digest(digest: str) -> str:
    """Returns the beginning of a digest, enough to distinguish splits at a glance."""
    return digest[:_DIGITS]


def metrics_table(metrics: dict[str, Any], title: str, split_digest: str) -> Table:
    """Lays out what `evaluate_split` returns, one row for each direction that was measured.

    Args:
        metrics: what `evaluate_split` returns.
        title: title of the table.
        split_digest: digest of the split. The table shows its beginning, because numbers on other
            splits cannot be compared.
    """
    known, cut, unit = metrics["vocabulary"], metrics["cut_off"], metrics["unit"]
    lines = (
        *_few_images(metrics),
        f"rsum {metrics['rsum']:.1f}",
        f"{unit} known {known['known_words']:.1f} %, "
        f"captions without one {known['captions_without_known_word']:.1f} %",
        f"captions cut after {cut['positions']} {unit} {cut['captions']:,}, "
        f"{unit} lost {cut['words']:,}",
        f"split {short_digest(split_digest)}",
    )
    table = Table(title=title, caption="\n".join(lines))
    headings, rows = metrics_rows({"": metrics})
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    for _, *cells in rows:
        table.add_row(*cells)
    return table


def calibration_table(measured: Mapping[str, Any]) -> Table:
    """Lays out what `measure_calibration` returns, one row for each size of the archive."""
    table = Table(
        title="probabilities of hits, if what is asked for is there as often as not",
        caption="error: expected calibration error of first hits, in points\n"
        "area: under the ROC curve, there against not there, in percent",
    )
    table.add_column("", no_wrap=True)
    for heading in ("items", "R@1 if there", "error", "error if there", "area", "area of cosine"):
        table.add_column(heading, justify="right")
    keys = ("right_first", "error", "error_if_there", "area", "area_of_cosine")
    for direction, archives in measured.items():
        for archive in archives:
            numbers = (f"{100 * archive[key]:.1f}" for key in keys)
            table.add_row(TITLES[direction], f"{archive['items']:,}", *numbers)
    return table


def _few_images(metrics: Mapping[str, Any]) -> list[str]:
    """Returns lines on what the recalls of a small split can tell; none for a large one."""
    images = metrics["images"]
    if images >= _MANY_IMAGES:
        return []
    # Captions of one image are no independent queries: images are counted in both directions.
    intervals = [
        f"{title} {low:.0f} to {high:.0f}"
        for direction, title in TITLES.items()
        if metrics[direction] is not None
        for low, high in [wilson_interval(metrics[direction]["r1"], images)]
    ]
    return [
        f"one of {images} images is {100 / images:.3g} points",
        f"95 % intervals of R@1: {', '.join(intervals)}",
    ]


def metrics_rows(
    measurements: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[list[str]]]:
    """Lays measurements out as the rows of a table.

    Args:
        measurements: results of `retrieval_metrics` or `identity_metrics`, by name.

    Returns:
        The headings of the metrics that any measurement has. For each direction that was measured
        a row: name, direction and these metrics, an empty text if it lacks one.
    """
    measured = [
        (name, title, result[direction])
        for name, result in measurements.items()
        for direction, title in TITLES.items()
        if result[direction] is not None
    ]
    keys = [key for key in _HEADINGS if any(key in values for _, _, values in measured)]
    rows = [
        [name, title, *(f"{values[key]:.1f}" if key in values else "" for key in keys)]
        for name, title, values in measured
    ]
    return [_HEADINGS[key] for key in keys], rows
