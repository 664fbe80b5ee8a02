"""The devices that a run trains on."""

from __future__ import annotations

from functools import cache

import keras
import tensorflow as tf


@cache
def make_strategy() -> tf.distribute.MirroredStrategy:
    """Returns the process's `MirroredStrategy` over all GPUs of the machine, or over its CPU.

    There is but one: a second one would number its messages between replicas from the start
    again, and TensorFlow remembers what the first one's were and refuses others.
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices)


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns one line: how many replicas, on which kind of device, in which precision."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    precision = keras.config.dtype_policy().name
    return f"{strategy.num_replicas_in_sync} replica(s) on {kind}, {precision}"
