"""SGD and AdamW with a learning rate for each kind of layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_dpce.config import StageConfig
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.schedule import StageSchedule


class _ByLayer(keras.optimizers.Optimizer):
    """Scales the step of each variable by a multiplier that its path selects."""

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        self._scales = [self.multipliers.get(v.path, 1.0) for v in variables]
        self._is_matrix = [len(v.shape) > 1 for v in variables]

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Leaves the weights alone: a stage may take several `fit`, and `averaged` swaps."""

    def get_config(self) -> dict[str, Any]:
        config = {"multipliers": dict(self.multipliers), "decay": self.decay}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("tf_dpce")
class LayerwiseSGD(_ByLayer, keras.optimizers.SGD):
    """The recipe's SGD: Nesterov momentum 0.9, decay coupled to the gradient.

    The step of a variable is `multiplier * lr` times the momentum of `gradient + decay * w`, so
    that at a constant rate the multiplier scales everything alike (section 5 of the recipe).

    Args:
        learning_rate: a float or a schedule.
        multipliers: from variable paths to factors of the learning rate; 1 where absent.
        decay: L2 factor, on all trained variables.
    """

    def __init__(
        self, learning_rate: Any, multipliers: Mapping[str, float], decay: float, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **{"momentum": 0.9, "nesterov": True, **kwargs})
        self.multipliers = multipliers
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        scale = self._scales[self._get_variable_index(variable)]
        coupled = ops.convert_to_tensor(gradient) + self.decay * ops.convert_to_tensor(variable)
        super().update_step(coupled, variable, learning_rate * scale)

    def slots(self, variable: Any) -> list[keras.Variable]:
        """Returns what is kept for a variable: its momentum."""
        return [self.momentums[self._get_variable_index(variable)]]


@keras.saving.register_keras_serializable("tf_dpce")
class LayerwiseAdamW(_ByLayer, keras.optimizers.Adam):
    """AdamW whose step and decay of a variable are both scaled by its multiplier.

    Args:
        learning_rate: a float or a schedule.
        multipliers: from variable paths to factors of the learning rate; 1 where absent.
        decay: decoupled decay, on matrices and filters alone.
    """

    def __init__(
        self, learning_rate: Any, multipliers: Mapping[str, float], decay: float, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.multipliers = multipliers
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = learning_rate * self._scales[index]
        if self._is_matrix[index]:
            self.assign_sub(variable, rate * self.decay * ops.convert_to_tensor(variable))
        super().update_step(ops.convert_to_tensor(gradient), variable, rate)

    def slots(self, variable: Any) -> list[keras.Variable]:
        """Returns what is kept for a variable: the averages of its gradient and of the square."""
        index = self._get_variable_index(variable)
        return [self._momentums[index], self._velocities[index]]


def stage_optimizer(
    stage: StageConfig, schedule: StageSchedule, model: DualPath
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a stage's configuration asks for, over the whole `model`."""
    kind = LayerwiseSGD if stage.optimizer == "sgd" else LayerwiseAdamW
    multipliers = _multipliers(stage, model)
    # Named, because Keras would count optimizers over the whole process.
    return kind(
        schedule,
        multipliers=multipliers,
        decay=stage.weight_decay,
        use_ema=stage.average > 0,
        ema_momentum=stage.average,
        name=stage.optimizer,
    )


def _multipliers(stage: StageConfig, model: DualPath) -> dict[str, float]:
    found = {v.path: stage.gamma_multiplier for v in model.variables if v.name == "gamma"}
    found |= _backbone_multipliers(stage, model.image_tower.get_layer("image_backbone"))
    groups = (
        (model.text_tower.get_layer("text_embedding"), stage.word_multiplier),
        (model.classifier, stage.classifier_multiplier),
    )
    found |= {v.path: scale for layer, scale in groups for v in layer.trainable_variables}
    if model.classifier.bias is not None:
        found[model.classifier.bias.path] = stage.classifier_bias_multiplier
    return found


def _backbone_multipliers(stage: StageConfig, backbone: keras.Model) -> dict[str, float]:
    kinds = {
        "bias": stage.backbone_bias_multiplier,
        "beta": stage.backbone_bias_multiplier,
        "gamma": stage.backbone_gamma_multiplier,
    }
    # Of all of it: which one is first must not depend on what `backbone_from` leaves frozen.
    first = next(v for v in backbone.weights if "kernel" in v.name)
    chosen = {
        v.path: stage.backbone_first_multiplier if v is first else kinds.get(v.name)
        for v in backbone.trainable_variables
    }
    return {p: stage.backbone_multiplier if m is None else m for p, m in chosen.items()}
