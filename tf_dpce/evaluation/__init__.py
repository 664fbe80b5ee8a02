"""Retrieval metrics, the protocols that data sets define, and reports."""

from __future__ import annotations

from tf_dpce.evaluation.metrics import identity_metrics, retrieval_metrics

__all__ = ["identity_metrics", "retrieval_metrics"]
