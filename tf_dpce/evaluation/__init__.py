"""Retrieval metrics, the protocols that data sets define, and reports."""

from __future__ import annotations

from tf_dpce.evaluation.metrics import retrieval_metrics

__all__ = ["retrieval_metrics"]
