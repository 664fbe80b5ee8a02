"""Image-text retrieval by dual-path convolutional embeddings with instance loss.

The public names are imported when they are first used, so that `import tf_dpce` alone is light:

    text_tower, image_tower, DualPath    the model, in pure Keras
    losses, evaluation                   the objectives and the retrieval metrics
    load_pairs                           a table of images and captions as tf.data
    CaptionTokenizer                     captions to word ids
    RetrievalEvaluation                  recalls of validation pairs while a model is fitted
    load                                 a run folder or an exported model, ready to encode
    Searcher                             queries to the hits of an index
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CaptionTokenizer": "tf_dpce.preprocessing.tokenizer",
    "DualPath": "tf_dpce.models.dual_path",
    "RetrievalEvaluation": "tf_dpce.evaluation.callback",
    "Searcher": "tf_dpce.search.searcher",
    "image_tower": "tf_dpce.models.image_tower",
    "load": "tf_dpce.export.encoder",
    "load_pairs": "tf_dpce.data.pairs",
    "text_tower": "tf_dpce.models.text_tower",
}
_ROOMS = ("evaluation", "losses")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"tf_dpce.{name}")
    raise AttributeError(f"module 'tf_dpce' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_ROOMS])
