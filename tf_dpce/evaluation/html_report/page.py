"""The sections of a report."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tf_dpce.data.input_pipeline import RecordReader
from tf_dpce.data.manifest import Manifest
from tf_dpce.drawing.charts import Chart
from tf_dpce.drawing.thumbnails import small_jpeg
from tf_dpce.evaluation.embedded_split import EmbeddedSplit
from tf_dpce.evaluation.html_report import learning
from tf_dpce.evaluation.html_report.calibrated import calibration_charts
from tf_dpce.evaluation.html_report.captions import read_captions, recall_by_length
from tf_dpce.evaluation.html_report.published import published_rows
from tf_dpce.evaluation.html_report.searched import FIRST_HITS, Searched, search_split, skewness
from tf_dpce.evaluation.html_report.texts import say
from tf_dpce.evaluation.metrics import wilson_interval
from tf_dpce.evaluation.protocols import PROTOCOLS
from tf_dpce.evaluation.report import TITLES, metrics_rows
from tf_dpce.templates import read_template

_SIDE = 320  # of an image, in pixels
_HUBS = 6
_UNKNOWN = 30  # words
_POINTS = 60  # of a curve over ranks
_RECALLS = ("r1", "r5", "r10")
_SHORT = {"image_to_text": "i2t", "text_to_image": "t2i"}


@dataclass
class Report:
    """What a report is made of, and the charts that it has drawn so far.

    Attributes:
        embedded: the split.
        metrics: what was measured, as in the metrics file.
        epochs: the epochs of the run.
        trained_on: digest of the split that the run was trained on.
        curve: rsum of other runs by amount of data, if it was measured.
        charts: all figures.
    """

    embedded: EmbeddedSplit
    metrics: Mapping[str, Any]
    epochs: Sequence[learning.Epoch]
    trained_on: object
    curve: learning.Curves | None
    charts: list[Chart] = field(default_factory=list)

    def __post_init__(self) -> None:
        embedded, protocol = self.embedded, self.metrics["protocol"]
        self.manifest = Manifest.load(embedded.folder)
        self._reader = RecordReader(embedded.folder, embedded.split)
        self._captions = read_captions(embedded)
        self.found = {
            direction: search_split(embedded, PROTOCOLS[protocol], direction)
            for direction in TITLES
            if self.metrics[direction] is not None
        }

    def html(self) -> str:
        """Returns the page; `report.html` escapes every text that is not its own."""
        metrics, data = self.metrics, self.embedded.folder.resolve().name
        charts, said = calibration_charts(self.embedded, metrics)
        hubs = self._hubs()
        chart, rows = recall_by_length(self._captions, self.found["text_to_image"], metrics["unit"])
        return read_template(__package__, "report.html").render(
            say=say,
            data_url=_data_url,
            hubness=_hubness,
            largest_hubs=_largest_hubs,
            title=f"{metrics['run']} on {data}, {self.embedded.split}",
            metrics=metrics,
            split=self.embedded.split,
            titles=TITLES,
            found=self.found,
            recall=self._recall(),
            ranks=self._drawn(self._ranks()),
            late={way: _late(found) for way, found in self.found.items()},
            probabilities={"charts": [*map(self._drawn, charts)], "said": said},
            hubs=hubs and self._drawn(hubs),
            first=FIRST_HITS,
            vocabulary=self._vocabulary(),
            lengths={"chart": self._drawn(chart), "rows": rows},
            learning=self._learning(),
            image=self._image,
            text=self._text,
        )

    # --- sections -----------------------------------------------------------------------------

    def _recall(self) -> dict[str, Any]:
        metrics, ways = self.metrics, self.found
        intervals = (
            f"{TITLES[way]} {low:.1f} to {high:.1f}"
            for way in ways
            for low, high in [wilson_interval(metrics[way]["r1"], metrics["images"])]
        )
        headings, rows = metrics_rows({"this run": metrics})
        keys = [(way, k) for way in ways for k in _RECALLS]
        published = [
            [row["method"], *(row[f"{_SHORT[way]}_{k}"] for way, k in keys), row["source"]]
            for row in published_rows(self.manifest, self.embedded.split, metrics["protocol"])
        ]
        own = ["this run", *(f"{metrics[way][k]:.1f}" for way, k in keys), ""]
        heads = (f"{_SHORT[way]} R@{k[1:]}" for way, k in keys)
        return {
            "headings": ["", "direction", *headings],
            "rows": rows,
            "intervals": "; ".join(intervals),
            "published_headings": ["method", *heads, "source"],
            "published": published and [own, *published],
        }

    def _ranks(self) -> Chart:
        lines = {}
        for direction, found in self.found.items():
            at = np.unique(np.geomspace(1, found.corpus, _POINTS).astype(int))
            shares = [100 * float(np.mean(found.ranks <= rank)) for rank in at]
            lines[TITLES[direction]] = list(zip(at.tolist(), shares, strict=True))
        title = "Queries that have a right item among the first K"
        return Chart("ranks", title, "K", "percent of queries", lines, logarithmic="x", top=100)

    def _hubs(self) -> Chart | None:
        lines = {}
        for direction, found in self.found.items():
            if found.corpus <= FIRST_HITS:
                continue
            counts = found.occurrences
            at = np.unique(np.geomspace(1, max(1, counts.max()), _POINTS).astype(int))
            lines[TITLES[direction]] = [(int(n), int(np.sum(counts >= n))) for n in at]
        title = f"Items that are among the first {FIRST_HITS} of at least n queries"
        return Chart("hubs", title, "n", "items", lines, logarithmic="xy") if lines else None

    def _vocabulary(self) -> dict[str, Any]:
        known, cut, unit = (self.metrics[key] for key in ("vocabulary", "cut_off", "unit"))
        rows = [(say(key, unit=unit), f"{known[key]:.2f} %") for key in known]
        rows += [
            (say("cut_captions", unit=unit, **cut), f"{cut['captions']:,}"),
            (say("cut_words", unit=unit), f"{cut['words']:,}"),
            (say("unknown", unit=unit), f"{len(self._captions.unknown):,}"),
        ]
        most = self._captions.unknown.most_common(_UNKNOWN)
        return {"rows": rows, "words": ", ".join(f"{word} ({count:,})" for word, count in most)}

    def _learning(self) -> dict[str, Any]:
        """Returns nothing if the run was trained on other data."""
        if self.manifest.split_digest != self.trained_on:
            return {}
        chart, images = learning.epochs_chart(self.epochs), self.manifest.splits["val"].images
        known: dict[str, Any] = {"epochs": chart and self._drawn(chart)}
        if chart:
            known["of_epochs"] = learning.on_epochs(self.epochs, images)
        if self.embedded.split != "train":
            measured = learning.seen_and_unseen(self.embedded)
            headings, known["rows"] = metrics_rows(measured)
            known["headings"] = ["searched", "direction", *headings]
            rsums = (each["rsum"] for each in measured.values())
            known["of_pairs"] = learning.on_pairs(*rsums, self.metrics["images"])
        if self.curve is None:
            return {**known, "of_amount": [learning.Verdict("not_measured", {})]}
        curves, images = self.curve.items(), self.metrics["images"]
        known["amount"] = self._drawn(learning.amount_chart(self.curve))
        return {**known, "of_amount": [learning.on_amount(*each, images) for each in curves]}

    # --- pieces -------------------------------------------------------------------------------

    def _drawn(self, chart: Chart) -> Chart:
        self.charts.append(chart)
        return chart

    def _image(self, row: int) -> tuple[str, bytes | str]:
        """Returns the name of an image, and a small JPEG or why there is none."""
        contents = self._reader(tf.constant(row, tf.int64))["image"].numpy()
        return self._captions.image_ids[row], small_jpeg(contents, _SIDE)

    def _text(self, row: int) -> str:
        text = self._captions.texts[row]
        known, unit = self._captions.known[row], self.metrics["unit"]
        return text if known else say("no_known_word", text=text, unit=unit)


def _late(found: Searched) -> dict[str, float]:
    worst, late = np.quantile(found.ranks, 0.9), np.mean(found.ranks > found.corpus / 10)
    return {"worst": int(worst), "corpus": found.corpus, "late": 100 * late}


def _hubness(found: Searched) -> dict[str, float]:
    counts, mean = found.occurrences, found.occurrences.mean()
    # Of a binomial with few successes: about that of a Poisson distribution.
    numbers = {"first": FIRST_HITS, "mean": mean, "chance": 1 / np.sqrt(mean)}
    return {"skewness": skewness(counts), "never": 100 * np.mean(counts == 0), **numbers}


def _largest_hubs(found: Searched) -> Iterator[tuple[int, int]]:
    """Yields the rows of the items, and how many queries have them among their first hits."""
    for place in np.argsort(-found.occurrences, kind="stable")[:_HUBS]:
        yield int(found.items[place]), found.occurrences[place]


def _data_url(contents: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(contents).decode()}"
