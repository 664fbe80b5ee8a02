"""SGD and AdamW with a learning rate for each kind of layer, its schedule, and averaged weights."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_dpce.config import StageConfig
from tf_dpce.errors import UserError
from tf_dpce.models.dual_path import DualPath

if TYPE_CHECKING:
    # It needs TensorFlow, and these optimizers run under JAX as well.
    from tf_dpce.monitoring.norms import GradientNorms

# --- the learning rate over a stage ---------------------------------------------------------------


class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from 0, then steps down to a tenth each, or half a cosine down to 0.

    Args:
        learning_rate: at its highest.
        total_steps: steps of the whole stage.
        warmup_steps: steps of the rise.
        decay_steps: steps at which the rate falls to a tenth; None asks for the cosine.
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        decay_steps: tuple[int, ...] | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> Any:
        """Returns the rate (scalar) of a step counted from 0."""
        step = ops.cast(step, "float32")
        rise = ops.minimum(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * rise * self._fall(step)

    def _fall(self, step: Any) -> Any:
        if self.decay_steps is None:
            span = max(1, self.total_steps - self.warmup_steps)
            done = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
            return (1 + ops.cos(math.pi * done)) / 2
        falls = sum((ops.cast(step >= start, "float32") for start in self.decay_steps), 0.0)
        return ops.power(0.1, falls)


def stage_schedule(stage: StageConfig, steps_per_epoch: int) -> StageSchedule:
    """Returns the schedule that a stage's configuration asks for."""
    steps = tuple(epoch * steps_per_epoch for epoch in stage.decay_epochs)
    return StageSchedule(
        stage.learning_rate,
        total_steps=stage.epochs * steps_per_epoch,
        warmup_steps=round(stage.warmup_epochs * steps_per_epoch),
        decay_steps=None if stage.schedule == "cosine" else steps,
    )


# --- optimizers -----------------------------------------------------------------------------------


class _ByLayer(keras.optimizers.Optimizer):
    """Scales the step of each variable by a multiplier that its path selects.

    Args:
        learning_rate: a float or a schedule.
        multipliers: from variable paths to factors of the learning rate; 1 where absent.
        decay: factor of the weights' decay.

    Attributes:
        gradient_norms: measures the gradients of each step, if given.
    """

    gradient_norms: GradientNorms | None = None

    def __init__(
        self, learning_rate: Any, multipliers: Mapping[str, float], decay: float, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.multipliers = multipliers
        self.decay = decay

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[tuple[Any, Any]]:
        summed = super()._all_reduce_sum_gradients(grads_and_vars)
        if self.gradient_norms is not None:
            self.gradient_norms.measure(self.iterations.value + 1, summed)
        return summed

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        self._scales = [self.multipliers.get(v.path, 1.0) for v in variables]
        self._is_matrix = [len(v.shape) > 1 for v in variables]

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Leaves the weights alone: a stage may take several `fit`, and `averaged` swaps."""


class LayerwiseSGD(_ByLayer, keras.optimizers.SGD):
    """The recipe's SGD: Nesterov momentum 0.9, decay coupled to the gradient.

    The step of a variable is `multiplier * lr` times the momentum of `gradient + decay * w`, so
    that at a constant rate the multiplier scales everything alike (section 5 of the recipe). The
    decay applies to all trained variables.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, momentum=0.9, nesterov=True, **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        scale = self._scales[self._get_variable_index(variable)]
        coupled = ops.convert_to_tensor(gradient) + self.decay * ops.convert_to_tensor(variable)
        super().update_step(coupled, variable, learning_rate * scale)

    def slots(self, variable: Any) -> list[keras.Variable]:
        """Returns the optimizer slots of a variable: its momentum."""
        return [self.momentums[self._get_variable_index(variable)]]


class LayerwiseAdamW(_ByLayer, keras.optimizers.Adam):
    """AdamW whose step and decay of a variable are both scaled by its multiplier.

    The decay is decoupled, and applies to matrices and filters alone.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = learning_rate * self._scales[index]
        if self._is_matrix[index]:
            self.assign(variable, ops.convert_to_tensor(variable) * (1 - rate * self.decay))
        gradient = ops.convert_to_tensor(gradient)
        # Gradients of an embedding are rows with their numbers. Keras squares each row before it
        # adds those of one number, which the fused operation does afterwards: they stay with Keras.
        if keras.backend.backend() == "tensorflow" and not hasattr(gradient, "indices"):
            self._fused_step(gradient, variable, rate)
        else:
            super().update_step(gradient, variable, rate)

    def _fused_step(self, gradient: Any, variable: Any, rate: Any) -> None:
        """Does what Adam does in one pass over the weights, where its operations take a dozen."""
        import tensorflow as tf

        step = ops.cast(self.iterations + 1, variable.dtype)
        average, squares = self.slots(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=average.handle,
            v=squares.handle,
            beta1_power=ops.power(ops.cast(self.beta_1, variable.dtype), step),
            beta2_power=ops.power(ops.cast(self.beta_2, variable.dtype), step),
            lr=ops.cast(rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def slots(self, variable: Any) -> list[keras.Variable]:
        """Returns the optimizer slots of a variable: averages of its gradient and of the square."""
        index = self._get_variable_index(variable)
        return [self._momentums[index], self._velocities[index]]


def stage_optimizer(
    stage: StageConfig, schedule: StageSchedule, model: DualPath
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a stage's configuration asks for, over the whole `model`.

    Raises:
        UserError: A pattern of `lr_multipliers` matches no variable.
    """
    kind = LayerwiseSGD if stage.optimizer == "sgd" else LayerwiseAdamW
    multipliers = lr_multipliers(stage.lr_multipliers, model)
    # Named, because Keras would count optimizers over the whole process.
    return kind(
        schedule,
        multipliers=multipliers,
        decay=stage.weight_decay,
        use_ema=stage.ema_momentum > 0,
        ema_momentum=stage.ema_momentum,
        name=stage.optimizer,
    )


def lr_multipliers(patterns: Mapping[str, float], model: DualPath) -> dict[str, float]:
    """Returns the factor on the learning rate of each variable that a pattern matches.

    Args:
        patterns: Factors by patterns of names; the last pattern that matches wins. See
            `StageConfig.lr_multipliers`.
        model: The model whose `named_variables` are matched, trained or not.

    Returns:
        Factors by `variable.path`.

    Raises:
        UserError: A pattern matches no variable of the model.
    """
    names = {name: variable.path for name, variable in model.named_variables()}
    factors = {}
    for pattern, factor in patterns.items():
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise UserError(
                "config.lr_multipliers",
                f"configuration: the pattern {pattern} in lr_multipliers matches no variable of "
                f"the model: the names are like {next(iter(names))}",
            )
        factors |= {names[name]: factor for name in matched}
    return factors


@contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Puts the running averages in place of the trained weights for as long as the block lasts.

    The weights come back bit by bit. An optimizer that keeps no averages changes nothing.

    Args:
        optimizer: built, with `use_ema` or without.
    """
    averages = optimizer._model_variables_moving_average if optimizer.use_ema else ()
    weights = optimizer._trainable_variables[: len(averages)]
    own = [weight.numpy() for weight in weights]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(average)
    try:
        yield
    finally:
        for weight, value in zip(weights, own, strict=True):
            weight.assign(value)
