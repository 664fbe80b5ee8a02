"""Exported models: made, verified, published and loaded again."""

from __future__ import annotations

# The endpoints of an export, each with the name of its only input.
ENDPOINTS = {"encode_image": "image", "encode_text": "text"}

# What a request that names no endpoint gets: the first one, as Keras and TF Serving have it.
DEFAULT_SIGNATURE = "serving_default"
