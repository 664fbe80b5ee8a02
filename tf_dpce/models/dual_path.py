"""The dual-path model: two towers and the instance classifier they share. Pure Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

import keras
from keras import layers, ops

from tf_dpce.models.layers import PairStack, RowDropout, UnitLength


@keras.saving.register_keras_serializable("tf_dpce")
class InstanceClassifier(layers.Layer):
    """One matrix W that scores images and sentences alike (paper section 4).

    Args:
        num_instances: C, the number of classes.
        use_bias: whether a shared bias is added.
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
        self.bias = (
            self.add_weight(shape=(self.num_instances,), initializer="zeros", name="bias")
            if self.use_bias
            else None
        )

    def _biased(self, logits: Any) -> Any:
        return logits if self.bias is None else logits + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_instances)

    def get_config(self) -> dict[str, Any]:
        config = {"num_instances": self.num_instances, "use_bias": self.use_bias}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("tf_dpce")
class RowClassifier(InstanceClassifier):
    """`InstanceClassifier` stored with a row for each class, `[C, D]`.

    A few classes are then a few stretches of memory, which is what the sampled classifier of
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

    Inputs are a dict: `image`, what the image tower takes (float32 RGB `[B, S, S, 3]` in 0..255,
    or backbone features `[B, F]` where the tower is a head alone), and `text`, int32 ids `[B, T]`.

    Outputs are a dict:

    - `image_logits`, `text_logits` `[B, C]`, from rectified features after dropout;
    - `pair` `[B, 2, D]`, rectified features of unit length, image first: what the ranking and
      contrastive losses take;
    - `image_embedding`, `text_embedding` `[B, D]`, features of unit length before the ReLU: what
      is compared at test time (the authors' code).

    Args:
        image_tower: model of images to `[B, D]`.
        text_tower: model of ids to `[B, D]`.
        num_instances: C, the number of image-caption groups.
        dropout: rate on the classifier's path, in both towers.
        classifier_bias: "shared" gives the classifier a bias for both modalities; "none" no bias.
        relu_before_losses: Whether the ReLU of the recipe stands before classifier and `pair`.
            Without it the losses see the very embeddings that are compared at test time.
        classifier: one to share with another model, or of another kind, instead of a new one.
        dropouts: those of "image" and "text", to share with another model.
        members: M, how many the towers have side by side. Each has length 1 / sqrt(M) in vectors
            of unit length; the classifier takes all as one.

    Example:
        >>> model = DualPath(image_tower("small", input_size=64), text_tower(100), 50, 0.5)
        >>> model.compile("adam", {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()})
    """

    def __init__(
        self,
        image_tower: keras.Model,
        text_tower: keras.Model,
        num_instances: int,
        dropout: float = 0.5,
        classifier_bias: str = "shared",
        relu_before_losses: bool = True,
        classifier: InstanceClassifier | None = None,
        dropouts: Mapping[str, RowDropout] | None = None,
        members: int = 1,
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
        unit = UnitLength(members, name="unit_length", dtype="float32")
        inputs = {
            "image": keras.Input(image_tower.input_shape[1:], name="image"),
            "text": keras.Input(text_tower.input_shape[1:], dtype="int32", name="text"),
        }

        # === Functional Model ===
        outputs, rectified = {}, []
        for modality, tower in (("image", image_tower), ("text", text_tower)):
            feature = tower(inputs[modality])
            active = (
                layers.ReLU(name=f"{modality}_relu")(feature) if relu_before_losses else feature
            )
            outputs[f"{modality}_logits"] = classifier(dropouts[modality](active))
            outputs[f"{modality}_embedding"] = unit(feature)
            rectified.append(unit(active))
        outputs["pair"] = PairStack(name="pair", dtype="float32")(rectified)
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
        self.members = members

    def shared_parts(self, **changes: Any) -> dict[str, Any]:
        """Returns the constructor's arguments for a model that shares all layers of this one.

        Args:
            changes: arguments to replace; a new `classifier` brings its own `num_instances`.
        """
        parts = {
            "image_tower": self.image_tower,
            "text_tower": self.text_tower,
            "dropout": self.dropout,
            "classifier_bias": self.classifier_bias,
            "relu_before_losses": self.relu_before_losses,
            "classifier": self.classifier,
            "dropouts": self.dropouts,
            "members": self.members,
            **changes,
        }
        return {**parts, "num_instances": parts["classifier"].num_instances}

    @classmethod
    def sharing(cls, model: DualPath, **changes: Any) -> Self:
        """Returns a model that shares all layers of another one, but for `changes`."""
        return cls(**model.shared_parts(**changes))

    def over_features(self) -> DualPath:
        """Returns the same model from backbone features `[B, F]` on: it shares all its weights."""
        return DualPath.sharing(self, image_tower=self.image_tower.get_layer("image_head"))

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
        """Model from images to unit vectors `[B, D]`."""
        return keras.Model(self.input["image"], self.output["image_embedding"])

    @cached_property
    def text_encoder(self) -> keras.Model:
        """Model from int32 ids `[B, T]` to unit vectors `[B, D]`."""
        return keras.Model(self.input["text"], self.output["text_embedding"])

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "image_tower": keras.saving.serialize_keras_object(self.image_tower),
            "text_tower": keras.saving.serialize_keras_object(self.text_tower),
            "num_instances": self.num_instances,
            "dropout": self.dropout,
            "classifier_bias": self.classifier_bias,
            "relu_before_losses": self.relu_before_losses,
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "members": self.members,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DualPath:
        parts = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("image_tower", "text_tower", "classifier")
        }
        return cls(**{**config, **parts})


def _leaves(layer: keras.Operation) -> Iterator[layers.Layer]:
    """Yields the layers within a model or a wrapper, or a layer that is neither."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    elif isinstance(layer, layers.Wrapper):
        yield from _leaves(layer.layer)
    elif isinstance(layer, layers.Layer):
        yield layer
