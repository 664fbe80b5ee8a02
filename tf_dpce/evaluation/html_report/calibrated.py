"""How far the probabilities of hits can be trusted, for a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_dpce.drawing.charts import Chart
from tf_dpce.drawing.reliability import LEAST_HITS, Measured, reliability_charts
from tf_dpce.evaluation.calibration_fit import LEAST_INSTANCES, RANKS, fit_calibration
from tf_dpce.evaluation.calibration_report import measure_calibration
from tf_dpce.evaluation.embedded_split import EmbeddedSplit, measured_probabilities
from tf_dpce.evaluation.html_report.texts import say
from tf_dpce.evaluation.protocols import CALIBRATION_SPLIT, split_named


def calibration_charts(
    embedded: EmbeddedSplit, metrics: Mapping[str, Any]
) -> tuple[list[Chart], str]:
    """Returns reliability diagrams, one for each direction, and a text about them.

    Probabilities are calibrated on the validation split. If that is the one that is evaluated, one
    half of its instances is calibrated on, and the other is measured. With too few pairs there are
    no diagrams.
    """
    instances = len(np.unique(embedded.plain[0].instances))
    pairs = split_named(embedded.folder, CALIBRATION_SPLIT).instances
    needed, key = LEAST_INSTANCES, "calibrated"
    if embedded.split == CALIBRATION_SPLIT:
        needed, key = 2 * LEAST_INSTANCES, "half"
    if pairs < needed:
        return [], say("too_few", needed=needed, split=CALIBRATION_SPLIT, found=pairs)
    if instances < 2 * RANKS:
        return [], say("few_to_measure", needed=2 * RANKS, found=instances)
    if key == "half":
        measured = _halves(embedded)
    else:
        measured = metrics.get("calibration") or measured_probabilities(embedded)["calibration"]
    reading = say("reading", least=LEAST_HITS)
    return [*reliability_charts(measured)], f"{say(key, split=CALIBRATION_SPLIT)} {reading}"


def _halves(embedded: EmbeddedSplit) -> Measured:
    (fitted, fitted_texts), (images, texts) = (
        [each.rows(np.flatnonzero(each.instances % 2 == odd)) for each in embedded.plain]
        for odd in (0, 1)
    )
    calibration = fit_calibration(*fitted.compared_with(fitted_texts))
    return measure_calibration(calibration, *images.compared_with(texts))
