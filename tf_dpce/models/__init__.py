"""The towers and the model. Pure Keras: no TensorFlow import, so any Keras backend runs them."""

from __future__ import annotations

from tf_dpce.models.baseline_towers import bag_of_words_tower, recurrent_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import image_tower
from tf_dpce.models.text_tower import small_text_tower, text_tower

__all__ = [
    "DualPath",
    "bag_of_words_tower",
    "image_tower",
    "recurrent_tower",
    "small_text_tower",
    "text_tower",
]
