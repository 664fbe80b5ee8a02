"""Our training step, the same Keras model on other backends, and a matrix product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.pairs import Work
from benchmarks.peers.step_config import COMPARED, StepSettings
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.objective import loss_weights, mark_trained, stage_losses
from tf_dpce.training.optimizers import stage_optimizer

_SIDE = 2_048  # of the matrices of the product


def ours(folder: Path, replicas: int = 1, **settings: Any) -> Work:
    """Opens the step that `fit` makes; writes its first weights and its batch."""
    import tensorflow as tf

    from benchmarks.material import random_batches, random_cache, random_model
    from tf_dpce.training.distributed import mirrored_strategy
    from tf_dpce.training.model_factory import stage_trainer

    (cpu,) = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    wanted = StepSettings(**settings)
    config, stage = wanted.configs()
    strategy = mirrored_strategy()
    with strategy.scope():
        model = random_model(config, wanted.words, wanted.classes)
        network = stage_trainer(stage, model, steps_per_epoch=1)
    weights = {name: variable.numpy() for name, variable in model.named_variables()}
    np.savez(folder / "weights.npz", **{n.replace("/", "|"): w for n, w in weights.items()})
    width = model.image_backbone.output_shape[-1]
    cache = random_cache(config, width, wanted.words, wanted.classes)
    batches = random_batches(cache, config, stage).take(1).cache().repeat()
    if stage.backbone == "trained":
        pixels = _pixels(wanted.batch, config.image.input_size)
        batches = batches.map(lambda inputs, targets: ({**inputs, "image": pixels}, targets))
    inputs, targets = next(batches.as_numpy_iterator())
    np.savez(folder / "batch.npz", **inputs, instance=targets["image_logits"])
    losses = network.fit(batches.take(1), verbose=0, shuffle=False).history["loss"]
    iterator = iter(strategy.experimental_distribute_dataset(batches))

    def step() -> float:
        network.reset_metrics()
        return float(network.train_function(iterator)["loss"])

    losses += [step() for _ in range(COMPARED - 1)]
    return Work(step, losses, wanted.batch)


def _pixels(batch: int, side: int) -> np.ndarray:
    """Returns images of coloured squares: a network of random weights takes all noise for alike."""
    colours = np.random.default_rng(0).uniform(0, 255, (batch, 7, 7, 3)).astype(np.float32)
    return np.repeat(np.repeat(colours, side // 7, axis=1), side // 7, axis=2)


def on_backend(folder: Path, **settings: Any) -> Work:
    """Opens a step of the same model, losses and optimizer on the backend of this process."""
    wanted = StepSettings(**settings)
    config, stage = wanted.configs()
    model = build_model(config, wanted.words, wanted.classes)
    mark_trained(stage, model)
    network = model.over_features() if stage.backbone == "cached" else model
    optimizer = stage_optimizer(stage, stage.learning_rate, model)
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, stage_losses(stage.loss), loss_weights=loss_weights(stage.loss))
    with np.load(folder / "weights.npz") as saved:
        for name, variable in model.named_variables():
            variable.assign(saved[name.replace("/", "|")])
    with np.load(folder / "batch.npz") as saved:
        inputs = {name: saved[name] for name in ("image", "text")}
        targets = dict.fromkeys(loss_weights(stage.loss), saved["instance"])

    def step() -> float:
        network.reset_metrics()
        return float(network.train_on_batch(inputs, targets, return_dict=True)["loss"])

    return Work(step, [step() for _ in range(COMPARED)], wanted.batch)


def product(folder: Path, **settings: Any) -> Work:
    """Opens a product of square matrices, in pairs by the multiply-adds that one takes in a step.

    TensorFlow multiplies: what it reaches is the most that this machine does in float32.
    """
    import tensorflow as tf

    wanted = StepSettings(**settings)
    model = build_model(wanted.configs()[0], wanted.words, wanted.classes)
    needed = multiply_adds(model, wanted.batch)
    left, right = (tf.random.stateless_uniform((_SIDE, _SIDE), (seed, 0)) for seed in (1, 2))
    times = -(-needed // _SIDE**3)

    def multiply() -> Any:
        for _ in range(times):
            found = left @ right
        return found.numpy()

    return Work(multiply, None, wanted.batch * times * _SIDE**3 / needed)


def multiply_adds(model: DualPath, batch: int) -> int:
    """Returns the multiply-adds of a step over cached features, its matrix products alone.

    A product costs as much in each of three passes: forward, and the gradients of its weights and
    of its inputs. The first layer of the image head needs no gradient of its inputs.
    """
    dense = [layer for layer in model.image_head.layers if isinstance(layer, keras.layers.Dense)]
    once = sum(_product_size(layer) for layer in dense + model.text_tower.layers)
    # Images and captions are classified by the same matrix.
    once += 2 * int(np.prod(model.classifier.kernel.shape))
    return batch * (3 * once - _product_size(dense[0]))


def _product_size(layer: Any) -> int:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    if len(kernel.shape) == 2:
        return int(np.prod(kernel.shape))
    width, *sides = kernel.shape
    # What a convolution sees before the first position is zero, and left out.
    return (layer.output.shape[1] * width - (width - 1)) * int(np.prod(sides))
