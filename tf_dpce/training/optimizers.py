"""SGD and AdamW with a learning rate for each kind of layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_dpce.config import StageConfig
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.schedule import StageSchedule

# Decay times rate up to which a weight without a gradient falls without a swing. Under sgd it
# is what leaves the matrix of `LayerwiseSGD.idle_steps` real eigenvalues: 1 / 361, rounded down.
MAX_DECAY = {"sgd": 0.0027, "adamw": 0.99}


class _ByLayer(keras.optimizers.Optimizer):
    """Scales the step of each variable by a multiplier that its path selects.

    What steps without a gradient do to a weight and its slots is linear in (weight, motion), where
    motion is made from the slots. `idle_steps` says what one step does, `idle` applies several.
    """

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

    def idle_steps(self, variable: Any, rates: np.ndarray) -> np.ndarray:
        """Returns matrices float64 `[T, 2, 2]` on (weight, momentum), for rates float64 `[T]`."""
        shrink = rates * self._scales[self._get_variable_index(variable)] * self.decay
        kept = np.full_like(shrink, self.momentum)
        return np.stack([1 - (1 + kept) * shrink, kept**2, -shrink, kept], axis=-1).reshape(
            -1, 2, 2
        )

    def idle(
        self, weight: Any, slots: Sequence[Any], product: Sequence[Any], steps: Any
    ) -> tuple[Any, list[Any]]:
        """Returns weight and slots after steps without a gradient.

        Args:
            weight: float32 of any shape.
            slots: of the same shape.
            product: the four entries of the product of matrices, each of a shape that fits.
            steps: how many, floats of a shape that fits.
        """
        a, b, c, d = product
        return a * weight + b * slots[0], [c * weight + d * slots[0]]


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

    def idle_steps(self, variable: Any, rates: np.ndarray) -> np.ndarray:
        """Returns matrices float64 `[T, 2, 2]` on (weight, motion), for rates float64 `[T]`.

        Motion is `m / (sqrt(v) + epsilon)`. It fades by `beta_1 / sqrt(beta_2)` a step where
        epsilon fades like `sqrt(v)`; in truth epsilon stays, which is the one departure from
        the dense optimizer: of the way that a row still goes by its momentum, at most
        0.9 / (sqrt(0.999) - 0.9) / 9 - 1, half a percent.
        """
        index = self._get_variable_index(variable)
        scaled, fading = rates * self._scales[index], self.beta_1 / np.sqrt(self.beta_2)
        done = np.arange(1, len(rates) + 1)
        corrected = scaled * np.sqrt(1 - self.beta_2**done) / (1 - self.beta_1**done)
        kept = 1 - scaled * (self.decay if self._is_matrix[index] else 0)
        entries = [kept, -corrected * fading, np.zeros_like(kept), np.full_like(kept, fading)]
        return np.stack(entries, axis=-1).reshape(-1, 2, 2)

    def idle(
        self, weight: Any, slots: Sequence[Any], product: Sequence[Any], steps: Any
    ) -> tuple[Any, list[Any]]:
        """Returns weight and slots after steps without a gradient, as `LayerwiseSGD.idle` does."""
        mean, square = slots
        motion = mean / (ops.sqrt(square) + self.epsilon)
        faded = [mean * ops.power(self.beta_1, steps), square * ops.power(self.beta_2, steps)]
        return product[0] * weight + product[1] * motion, faded


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
