"""The two towers. Pure Keras: no TensorFlow import, so that any Keras backend runs them."""

from __future__ import annotations

from tf_dpce.models.image_tower import image_tower
from tf_dpce.models.recurrent import recurrent_tower
from tf_dpce.models.text_tower import bag_of_words_tower, text_tower

__all__ = ["bag_of_words_tower", "image_tower", "recurrent_tower", "text_tower"]
