"""The dual-path model: two towers and the instance classifier they share. Pure Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import keras
from keras import layers, ops

from tf_dpce.models.layers import RowDropout, UnitLength, WordEmbedding

# The outputs that score classes.
LOGITS = ("image_logits", "text_logits")
# The arguments of `DualPath` that are layers, and those that are plain values.
_LAYERS = ("image_tower", "text_tower", "classifier")
_SETTINGS = ("num_instances", "dropout", "classifier_bias", "relu_before_losses")


@keras.saving.register_keras_serializable("tf_dpce")
class InstanceClassifier(layers.Layer):
    """The matrix W that scores images and captions alike (paper section 4).

    Args:
        num_instances: The number C of classes.
        use_bias: Whether a bias is added for both modalities.
    """

    def __init__(self, num_instances: int, use_bias: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_instances = num_instances
        self.use_bias = use_bias

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # A tenth of the other layers' range: variance 0.01 / fan_in, as in the authors' code.
        initializer = keras.initializers.VarianceScaling(0.01, "fan_in", "uniform")
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_instances), initializer=initializer, name="kernel"
        )
        self._add_bias()

    def call(self, features: Any) -> Any:
        """Returns logits `[B, C]` of features `[B, D]`."""
        return self._biased(ops.matmul(features, self.kernel))

    def _add_bias(self) -> None:
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.num_instances,), initializer="zeros", name="bias"
            )

    def _biased(self, logits: Any) -> Any:
        return logits if self.bias is None else logits + self.bias

    def get_config(self) -> dict[str, Any]:
        config = {"num_instances": self.num_instances, "use_bias": self.use_bias}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("tf_dpce")
class RowClassifier(InstanceClassifier):
    """`InstanceClassifier` stored with a row for each class, `[C, D]`.

    A few classes are then a few stretches of memory, which is what the sampled softmax of
    `training` needs. As a layer it scores all of them, like the other one.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # The range of `InstanceClassifier`: its fan in is the width of a row.
        initializer = keras.initializers.VarianceScaling(0.01, "fan_out", "uniform")
        self.rows = self.add_weight(
            shape=(self.num_instances, input_shape[-1]), initializer=initializer, name="rows"
        )
        self._add_bias()

    def call(self, features: Any) -> Any:
        """Returns logits `[B, C]` of features `[B, D]`."""
        return self._biased(ops.matmul(features, ops.transpose(self.rows)))


@keras.saving.register_keras_serializable("tf_dpce")
class DualPath(keras.Model):
    """Two towers and the instance classifier they share, as one functional model.

    The inputs are a dict:

    - `image`, the input of the image tower: float32 RGB `[B, S, S, 3]` in 0..255, or backbone
      features `[B, F]` if the tower is only a head;
    - `text`, int32 token ids `[B, T]`.

    The outputs are a dict:

    - `image_logits`, `text_logits` `[B, C]`, from features after ReLU and dropout, for the
      instance loss;
    - `pair` `[B, 2, D]`, features after ReLU, of unit length, image first, for the ranking and the
      contrastive loss;
    - `image_embedding`, `text_embedding` `[B, D]`, features before the ReLU, of unit length, which
      are compared at test time (the authors' code);
    - `distillation` `[B, 2, D]`, both of these, image first, for the loss against a teacher.

    Args:
        image_tower: A model from images to features `[B, D]`.
        text_tower: A model from token ids to features `[B, D]`.
        num_instances: The number C of training instances, the classes of the instance loss.
        dropout: The dropout rate before the classifier, for both modalities.
        classifier_bias: "shared" gives the classifier a bias for both modalities, "none" no bias.
        relu_before_losses: Whether the recipe's ReLU is applied before the classifier and `pair`.
            Without it the losses use the same embeddings that are compared at test time.
        classifier: A classifier to use instead of a new one.
        dropouts: The dropout layers for "image" and "text" to use instead of new ones.
        kwargs: Keras's `name` and `trainable`.

    Example:
        >>> image, text = image_tower("small", None, 64, 32), text_tower(100, output_dim=32)
        >>> model = DualPath(image, text, num_instances=50)
        >>> model.compile("adam", {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()})
        >>> model.output["pair"].shape
        (None, 2, 32)
    """

    def __init__(
        self,
        image_tower: keras.Model,
        text_tower: keras.Model,
        num_instances: int,
        dropout: float = 0.5,
        classifier_bias: Literal["shared", "none"] = "shared",
        relu_before_losses: bool = True,
        classifier: InstanceClassifier | None = None,
        dropouts: Mapping[str, RowDropout] | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        classifier = classifier or InstanceClassifier(
            num_instances, classifier_bias == "shared", name="instance_classifier"
        )
        dropouts = dropouts or {
            modality: RowDropout(dropout, name=f"{modality}_dropout")
            for modality in ("image", "text")
        }
        unit_length = UnitLength(name="unit_length", dtype="float32")
        inputs = {
            "image": keras.Input(image_tower.input_shape[1:], name="image"),
            "text": keras.Input(text_tower.input_shape[1:], dtype="int32", name="text"),
        }

        # === Functional Model ===
        outputs, pair = {}, []
        for modality, tower in (("image", image_tower), ("text", text_tower)):
            feature = tower(inputs[modality])
            outputs[f"{modality}_embedding"] = unit_length(feature)
            if relu_before_losses:
                feature = layers.ReLU(name=f"{modality}_relu")(feature)
            outputs[f"{modality}_logits"] = classifier(dropouts[modality](feature))
            pair.append(unit_length(feature))
        outputs["pair"] = ops.stack(pair, axis=1)
        embeddings = [outputs["image_embedding"], outputs["text_embedding"]]
        outputs["distillation"] = ops.stack(embeddings, axis=1)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.num_instances = num_instances
        self.dropout = dropout
        self.classifier_bias = classifier_bias
        self.relu_before_losses = relu_before_losses
        self.classifier = classifier
        self.dropouts = dropouts
        self.unit_length = unit_length

    @property
    def image_backbone(self) -> keras.Model:
        """The model from images to backbone features `[B, F]`, of a tower by `image_tower`."""
        return self.image_tower.get_layer("image_backbone")

    @property
    def image_head(self) -> keras.Model:
        """The model from backbone features `[B, F]` to `[B, D]`, of a tower by `image_tower`."""
        return self.image_tower.get_layer("image_head")

    @property
    def word_embedding(self) -> WordEmbedding:
        """The layer of word vectors of a text tower of this library."""
        return self.text_tower.get_layer("text_embedding")

    def shared_parts(self, **changes: Any) -> dict[str, Any]:
        """Returns the constructor's arguments for a model that shares all layers of this one.

        Args:
            changes: Arguments to replace; a new `classifier` brings its own `num_instances`.
        """
        names = (*_LAYERS, *_SETTINGS, "dropouts")
        parts = {name: getattr(self, name) for name in names} | changes
        return parts | {"num_instances": parts["classifier"].num_instances}

    def over_features(self) -> DualPath:
        """Returns a model that takes backbone features `[B, F]` and shares all weights."""
        return DualPath(**self.shared_parts(image_tower=self.image_head))

    def named_variables(self) -> Iterator[tuple[str, keras.Variable]]:
        """Yields each weight with its name PART/LAYER/WEIGHT.

        A part is a model within the image tower ("image_backbone" or "image_head"), the text tower
        or "instance_classifier", whose weights have no layer in their names.
        """
        for tower in (self.image_tower, self.text_tower):
            for layer in tower.layers:
                part = layer if isinstance(layer, keras.Model) else tower
                for leaf in _leaves(layer):
                    for weight in leaf.weights:
                        yield f"{part.name}/{leaf.name}/{weight.name}", weight
        for weight in self.classifier.weights:
            yield f"{self.classifier.name}/{weight.name}", weight

    @cached_property
    def image_encoder(self) -> keras.Model:
        """The model from images to embeddings `[B, D]`."""
        return keras.Model(self.input["image"], self.output["image_embedding"])

    @cached_property
    def text_encoder(self) -> keras.Model:
        """The model from int32 ids `[B, T]` to embeddings `[B, D]`."""
        return keras.Model(self.input["text"], self.output["text_embedding"])

    def get_config(self) -> dict[str, Any]:
        """Returns the settings and both towers, as Keras saves them."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        parts = {k: keras.saving.serialize_keras_object(getattr(self, k)) for k in _LAYERS}
        return {"name": self.name, **settings, **parts}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DualPath:
        """Returns the model of a config.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes of one's own by name, as in `keras.models.load_model`.
        """
        parts = {
            k: keras.saving.deserialize_keras_object(config[k], custom_objects) for k in _LAYERS
        }
        return cls(**{**config, **parts})


def _leaves(layer: keras.Operation) -> Iterator[layers.Layer]:
    """Yields the layers within a model or a wrapper, or the layer itself if it is neither."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    elif isinstance(layer, layers.Wrapper):
        yield from _leaves(layer.layer)
    elif isinstance(layer, layers.Layer):
        yield layer
