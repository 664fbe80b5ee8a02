"""Exported models: made, verified, published and loaded again."""

from __future__ import annotations

# The endpoints of an export, each with the name of its only input.
ENDPOINTS = {"encode_image": "image", "encode_text": "text"}

# A request that names no endpoint gets the first one, as in Keras and TF Serving.
DEFAULT_SIGNATURE = "serving_default"

# The endpoint behind each signature. TensorFlow prepares each by itself.
SIGNATURES = {**{name: name for name in ENDPOINTS}, DEFAULT_SIGNATURE: "encode_image"}


class Differs(Exception):
    """An export that is not what it should be; the message says in what."""
