"""Image-text retrieval by dual-path convolutional embeddings with instance loss.

The public names are imported when they are first used, so `import tf_dpce` alone is light:

    text_tower, image_tower, DualPath    the model, in pure Keras
    losses, evaluation                   the losses and the retrieval metrics
    load_pairs                           reads a table of images and captions for `fit`
    CaptionTokenizer                     turns captions into token ids
    RetrievalEvaluation                  adds recalls of validation pairs to the logs of `fit`
    export_model                         exports a trained model as a verified SavedModel
    load                                 loads a run or an exported model, to encode with it
    Searcher                             answers queries from an index
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_dpce import evaluation, losses
    from tf_dpce.data.pairs import load_pairs
    from tf_dpce.evaluation.callback import RetrievalEvaluation
    from tf_dpce.export.publish import export_model
    from tf_dpce.models.dual_path import DualPath
    from tf_dpce.models.image_tower import image_tower
    from tf_dpce.models.text_tower import text_tower
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
    from tf_dpce.runtimes.load import load
    from tf_dpce.search.searcher import Searcher

__version__ = "0.1.0"

__all__ = [
    "CaptionTokenizer",
    "DualPath",
    "RetrievalEvaluation",
    "Searcher",
    "evaluation",
    "export_model",
    "image_tower",
    "load",
    "load_pairs",
    "losses",
    "text_tower",
]

# The same imports once more, for programs that run.
_HOMES = {
    "CaptionTokenizer": "tf_dpce.preprocessing.tokenizer",
    "DualPath": "tf_dpce.models.dual_path",
    "RetrievalEvaluation": "tf_dpce.evaluation.callback",
    "Searcher": "tf_dpce.search.searcher",
    "export_model": "tf_dpce.export.publish",
    "image_tower": "tf_dpce.models.image_tower",
    "load": "tf_dpce.runtimes.load",
    "load_pairs": "tf_dpce.data.pairs",
    "text_tower": "tf_dpce.models.text_tower",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"tf_dpce.{name}")
    raise AttributeError(f"module 'tf_dpce' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
