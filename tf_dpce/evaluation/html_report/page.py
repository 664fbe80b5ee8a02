"""The sections of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from tf_dpce.evaluation.html_report.html import Html, data_url, fill, joined, paragraph, table
from tf_dpce.evaluation.html_report.published import published_rows
from tf_dpce.evaluation.html_report.searched import (
    FIRST_HITS,
    Miss,
    Searched,
    search_split,
    skewness,
)
from tf_dpce.evaluation.html_report.texts import say
from tf_dpce.evaluation.metrics import wilson_interval
from tf_dpce.evaluation.protocols import PROTOCOLS
from tf_dpce.evaluation.report import TITLES, metrics_rows

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

    def html(self) -> Html:
        """Returns the page."""
        sections = {
            "Recall": self._recall(),
            "Ranks": self._ranks(),
            "Hardest misses": self._misses(),
            "Probabilities": self._probabilities(),
            "Hubs": self._hubs(),
            "Vocabulary": self._vocabulary(),
            "Caption length": self._lengths(),
            "More epochs or more pairs": self._learning(),
        }
        metrics, data = self.metrics, self.embedded.folder.resolve().name
        return fill(
            "page",
            title=f"{metrics['run']} on {data}, {self.embedded.split}",
            facts=say("facts", **metrics),
            command=metrics["command"],
            sections=joined(
                fill("section", name=title.lower().replace(" ", "-"), title=title, body=body)
                for title, body in sections.items()
            ),
        )

    # --- sections -----------------------------------------------------------------------------

    def _recall(self) -> Html:
        metrics, split = self.metrics, self.embedded.split
        intervals = "; ".join(
            f"{TITLES[way]} {low:.1f} to {high:.1f}"
            for way in self.found
            for low, high in [wilson_interval(metrics[way]["r1"], metrics["images"])]
        )
        headings, rows = metrics_rows({"this run": metrics})
        own = table(("", "direction", *headings), rows)
        said = paragraph(say("intervals", rsum=metrics["rsum"], intervals=intervals))
        published = published_rows(self.manifest, split, metrics["protocol"])
        if not published:
            return joined([own, said, paragraph(say("no_published"))])
        notes = [say("published", protocol=metrics["protocol"])]
        notes += [say("other_split", split=split)] if split != "test" else []
        notes += [say("querybank")] if metrics["querybank"] else []
        return joined([own, said, self._beside(published), paragraph(" ".join(notes))])

    def _beside(self, published: Sequence[Mapping[str, str]]) -> Html:
        keys = [(way, k) for way in self.found for k in _RECALLS]
        own = [f"{self.metrics[way][k]:.1f}" for way, k in keys]
        rows = [
            [row["method"], *(row[f"{_SHORT[way]}_{k}"] for way, k in keys), row["source"]]
            for row in published
        ]
        heads = ("method", *(f"{_SHORT[way]} R@{k[1:]}" for way, k in keys), "source")
        return table(heads, [["this run", *own, ""], *rows], "published")

    def _ranks(self) -> Html:
        lines, texts = {}, []
        for direction, found in self.found.items():
            at = np.unique(np.geomspace(1, found.corpus, _POINTS).astype(int))
            shares = [100 * float(np.mean(found.ranks <= rank)) for rank in at]
            lines[TITLES[direction]] = list(zip(at.tolist(), shares, strict=True))
            worst, late = np.quantile(found.ranks, 0.9), np.mean(found.ranks > found.corpus / 10)
            numbers = {"worst": int(worst), "corpus": found.corpus, "late": 100 * late}
            texts.append(say("ranks", direction=TITLES[direction], **numbers))
        title = "Queries that have a right item among the first K"
        chart = Chart("ranks", title, "K", "percent of queries", lines, logarithmic="x", top=100)
        return joined([self._figure(chart), *map(paragraph, texts)])

    def _misses(self) -> Html:
        parts = []
        for direction, found in self.found.items():
            parts.append(Html(f"<h3>{TITLES[direction]}</h3>"))
            rows = joined(self._miss(direction, miss) for miss in found.misses)
            list_of = Html(f'<ul class="rows">{rows}</ul>')
            parts.append(list_of if rows else paragraph(say("all_found")))
        return joined(parts)

    def _probabilities(self) -> Html:
        charts, note = calibration_charts(self.embedded, self.metrics)
        return joined([paragraph(note), *map(self._figure, charts)])

    def _hubs(self) -> Html:
        lines, parts = {}, []
        for direction, found in self.found.items():
            counts, title = found.occurrences, TITLES[direction]
            at = np.unique(np.geomspace(1, max(1, counts.max()), _POINTS).astype(int))
            lines[title] = [(int(n), int(np.sum(counts >= n))) for n in at]
            parts += [Html(f"<h3>{title}</h3>"), paragraph(_hubness(found))]
            parts.append(self._top_hubs(direction, found))
        title = f"Items that are among the first {FIRST_HITS} of at least n queries"
        chart = Chart("hubs", title, "n", "items", lines, logarithmic="xy")
        return joined([self._figure(chart), *parts])

    def _vocabulary(self) -> Html:
        known, cut = self.metrics["vocabulary"], self.metrics["cut_off"]
        rows = [(say(key), f"{known[key]:.2f} %") for key in known]
        rows += [
            (say("cut_captions", **cut), f"{cut['captions']:,}"),
            (say("cut_words"), f"{cut['words']:,}"),
            (say("unknown"), f"{len(self._captions.unknown):,}"),
        ]
        most = self._captions.unknown.most_common(_UNKNOWN)
        words = ", ".join(f"{word} ({count:,})" for word, count in most)
        frequent = paragraph(say("frequent", words=words)) if most else Html()
        return joined([table(("", ""), rows), frequent])

    def _lengths(self) -> Html:
        chart, rows = recall_by_length(self._captions, self.found["text_to_image"])
        return joined(
            [self._figure(chart), table(("words", "captions", "R@1", "R@5", "R@10"), rows)]
        )

    def _learning(self) -> Html:
        if self.manifest.split_digest != self.trained_on:
            return paragraph(say("other_data"))
        chart, images = learning.epochs_chart(self.epochs), self.manifest.splits["val"].images
        parts = [paragraph(say("no_history"))]
        if chart:
            parts = [self._figure(chart), _verdict(learning.on_epochs(self.epochs, images))]
        if self.embedded.split != "train":
            measured = learning.seen_and_unseen(self.embedded)
            headings, rows = metrics_rows(measured)
            parts.append(table(("searched", "direction", *headings), rows))
            rsums = (each["rsum"] for each in measured.values())
            parts.append(_verdict(learning.on_pairs(*rsums, self.metrics["images"])))
        return joined([*parts, *self._amount()])

    def _amount(self) -> list[Html]:
        if self.curve is None:
            return [_verdict(learning.Verdict("not_measured", {}))]
        images = self.metrics["images"]
        verdicts = [learning.on_amount(*each, images) for each in self.curve.items()]
        return [self._figure(learning.amount_chart(self.curve)), *map(_verdict, verdicts)]

    # --- pieces -------------------------------------------------------------------------------

    def _figure(self, chart: Chart) -> Html:
        self.charts.append(chart)
        light, dark = (data_url("png", chart.png(dark)) for dark in (False, True))
        return fill("figure", name=chart.name, title=chart.title, light=light, dark=dark)

    def _image(self, row: int) -> Html:
        contents = self._reader(tf.constant(row, tf.int64))["image"].numpy()
        name, small = self._captions.image_ids[row], small_jpeg(contents, _SIDE)
        if isinstance(small, str):
            return fill("text", text=f"{name} ({small})")
        return fill("image", name=name, source=data_url("jpeg", small))

    def _text(self, row: int) -> Html:
        text = self._captions.texts[row]
        return fill(
            "text", text=text if self._captions.known[row] else say("no_known_word", text=text)
        )

    def _miss(self, direction: str, miss: Miss) -> Html:
        query, item = self._image, self._text
        if direction == "text_to_image":
            query, item = item, query
        first, right = item(miss.first), item(miss.right)
        return fill(
            "miss", query=query(miss.query), first=first, right=right, rank=f"{miss.rank:,}"
        )

    def _top_hubs(self, direction: str, found: Searched) -> Html:
        shown = self._text if direction == "image_to_text" else self._image
        rows = []
        for place in np.argsort(-found.occurrences, kind="stable")[:_HUBS]:
            label = fill("label", text=say("hub", count=found.occurrences[place]))
            rows.append(Html(f"<li>{shown(int(found.items[place]))}{label}</li>"))
        return Html(f'<ul class="hubs">{joined(rows)}</ul>')


def _hubness(found: Searched) -> str:
    counts, mean = found.occurrences, found.occurrences.mean()
    # Of a binomial with few successes: about that of a Poisson distribution.
    numbers = {"first": FIRST_HITS, "mean": mean, "chance": 1 / np.sqrt(mean)}
    return say("hubs", skewness=skewness(counts), never=100 * np.mean(counts == 0), **numbers)


def _verdict(verdict: learning.Verdict) -> Html:
    return fill("verdict", text=say(verdict.key, **verdict.numbers))
