"""Whether more epochs or more pairs would help: what a run and its data can say of that."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from tf_dpce.data.manifest import Manifest
from tf_dpce.drawing.charts import Chart
from tf_dpce.errors import UserError
from tf_dpce.evaluation.metrics import RANK_IMAGES, retrieval_metrics

if TYPE_CHECKING:
    from tf_dpce.evaluation.embedded_split import EmbeddedSplit

# Points of rsum with 1,000 images: two standard deviations of the difference of two runs on
# Flickr8k that differ in their seed alone (one run: 2.1, RESULTS.md).
_CLEAR, _CLEAR_IMAGES = 6.0, 1_000
_MOST_IMAGES = 1_000  # training images that are searched, and as many others
_BY_HEART = 540.0  # rsum: nine tenths of what it can be
_LOW_RATE = 0.05  # of a stage's highest learning rate
_NEEDED = "it takes the columns images, above 0, and rsum, from 0 to 600"

Curves = Mapping[str, Mapping[int, Sequence[float]]]


class Verdict(NamedTuple):
    """A text of `texts.toml`, by its key, and what fills its places."""

    key: str
    numbers: Mapping[str, object]


class Epoch(NamedTuple):
    """An epoch of a run; `rsum` is None if it was not validated."""

    stage: int
    epoch: int
    learning_rate: float
    rsum: float | None


def clear_gain(images: int) -> float:
    """Returns the points of rsum above which a difference is hardly chance.

    Example:
        >>> clear_gain(1_000), clear_gain(250)
        (6.0, 12.0)
    """
    return _CLEAR * max(1.0, math.sqrt(_CLEAR_IMAGES / images))


def read_epochs(rows: Iterable[Mapping[str, str]], path: Path) -> list[Epoch]:
    """Reads what counts of the rows of a `history.csv`.

    Raises:
        UserError: a row is damaged.
    """
    try:
        return [
            Epoch(
                int(row["stage"]),
                int(row["epoch"]),
                float(row["learning_rate"]),
                float(row["val_rsum"]) if row["val_rsum"] else None,
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError):
        message = f"{path} is damaged: put a copy back, or remove it"
        raise UserError("run.history", message, path) from None


def epochs_chart(epochs: Sequence[Epoch]) -> Chart | None:
    """Returns the validation rsum over the epochs of all stages, if there were two validations."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, epoch in enumerate(epochs, start=1):
        if epoch.rsum is not None:
            lines.setdefault(f"stage {epoch.stage}", []).append((number, epoch.rsum))
    if sum(map(len, lines.values())) < 2:
        return None
    title = "Validation rsum while it trained"
    return Chart("epochs", title, "epochs of training", "rsum of the validation split", lines)


def on_epochs(epochs: Sequence[Epoch], images: int) -> Verdict:
    """Returns what the last stage of a run says about more epochs.

    Args:
        epochs: all epochs of the run, one or more.
        images: number of images of the validation split.
    """
    last = [epoch for epoch in epochs if epoch.stage == epochs[-1].stage]
    points = [epoch for epoch in last if epoch.rsum is not None]
    if len(points) < 3 or images < RANK_IMAGES:
        return Verdict("few_validations", {"least": RANK_IMAGES})
    clear, end, peak = clear_gain(images), points[-1], max(points, key=lambda point: point.rsum)
    two_thirds = [point for point in points if point.epoch <= 2 * end.epoch / 3]
    earlier = two_thirds[-1] if two_thirds else points[0]
    gain, low = end.rsum - earlier.rsum, _LOW_RATE * max(epoch.learning_rate for epoch in last)
    numbers = {"peak": peak.rsum, "peak_epoch": peak.epoch, "end": end.rsum, "gain": gain}
    numbers |= {"earlier": earlier.epoch, "epoch": end.epoch, "stage": end.stage}
    numbers["twice"] = 2 * end.epoch
    if peak.rsum - end.rsum > clear:
        return Verdict("fewer_epochs", numbers)
    if gain > clear:
        return Verdict("more_epochs", numbers)
    return Verdict("flat_by_schedule" if end.learning_rate < low else "flat", numbers)


def seen_and_unseen(embedded: EmbeddedSplit) -> dict[str, dict]:
    """Returns the recalls of training images, and of as many images of a split, by name.

    Both are searched by the protocol "all" with plain cosines.
    """
    folder, (images, texts) = embedded.folder, embedded.plain
    known = Manifest.load(folder).splits["train"].images
    most = min(_MOST_IMAGES, known, len(images.vectors))
    captions = int(embedded.counts.per_image[:most].sum())
    unseen = images.rows(slice(most)), texts.rows(slice(captions))
    seen = embedded.encoder.embed(folder, "train", most)
    return {
        name: retrieval_metrics(*images.compared_with(texts))
        for name, (images, texts) in {
            f"{most:,} training images": seen,
            f"{most:,} images of {embedded.split}": unseen,
        }.items()
    }


def on_pairs(seen: float, unseen: float, images: int) -> Verdict:
    """Returns what the rsum of training pairs, and of others, says about more pairs or epochs."""
    numbers = {"seen": seen, "unseen": unseen}
    if unseen >= _BY_HEART:
        return Verdict("solved", numbers)
    if seen - unseen <= clear_gain(images):
        return Verdict("not_learnt", numbers)
    return Verdict("by_heart" if seen >= _BY_HEART else "half_learnt", numbers)


def read_learning_curve(path: Path) -> dict[str, dict[int, list[float]]]:
    """Reads the rsum of runs on different amounts of data.

    Args:
        path: a CSV with the columns `images`, `seed`, `rsum` and, if there are several
            configurations, `name`.

    Returns:
        By name, and by number of training images in rising order, the rsum of each seed.

    Raises:
        UserError: the file is missing or damaged.
    """
    curves: dict[str, dict[int, list[float]]] = {}
    try:
        reader = csv.DictReader(path.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("report.learning_curve", f"{path}: {error}: {_NEEDED}", path) from None
    try:
        for row in reader:
            images, rsum = int(row["images"]), float(row["rsum"])
            if images < 1 or not 0 <= rsum <= 600:
                raise ValueError
            curves.setdefault(row.get("name") or "rsum", {}).setdefault(images, []).append(rsum)
    except (csv.Error, KeyError, ValueError, TypeError):
        line = reader.line_num
        message = f"{path} line {line}: {_NEEDED}"
        raise UserError("report.learning_curve", message, path, line) from None
    if not curves:
        raise UserError("report.learning_curve", f"{path} has no rows: {_NEEDED}", path)
    return {name: dict(sorted(amounts.items())) for name, amounts in curves.items()}


def amount_chart(curves: Curves) -> Chart:
    """Returns the mean rsum of the seeds over the number of training images."""
    lines = {
        name: [(images, mean(values)) for images, values in amounts.items()]
        for name, amounts in curves.items()
    }
    title = "rsum by the amount of training data, mean of the seeds"
    return Chart("amount", title, "training images", "rsum", lines, logarithmic="x")


def on_amount(name: str, amounts: Mapping[int, Sequence[float]], images: int) -> Verdict:
    """Returns what the two largest amounts of a learning curve say about more pairs.

    Args:
        name: name of the curve.
        amounts: rsum of each seed by number of training images, rising.
        images: number of images that were scored.
    """
    if len(amounts) < 2:
        return Verdict("one_amount", {"name": name})
    (less, before), (more, after) = list(amounts.items())[-2:]
    gain, seeds = mean(after) - mean(before), min(len(before), len(after))
    numbers = {"name": name, "less": less, "more": more, "gain": gain}
    numbers["each"] = gain / math.log2(more / less)
    helps = gain > clear_gain(images) / math.sqrt(seeds)
    return Verdict("more_pairs" if helps else "enough_pairs", numbers)
