"""Which backend computes, and on what."""

from __future__ import annotations

import keras

from tf_dpce.errors import UserError


def used_device() -> tuple[str, str]:
    """Returns the backend and the device that Keras computes on, each as it names itself.

    Raises:
        UserError: the backend is TensorFlow's, whose training is `train`, or is unknown here.
    """
    backend = keras.backend.backend()
    if backend not in ("jax", "torch"):
        raise UserError(
            f"KERAS_BACKEND is {backend}: fit with jax or torch, or use train under TensorFlow"
        )
    devices = _jax_devices() if backend == "jax" else _torch_devices()
    others = f" (1 of {len(devices)}, the others rest)" if len(devices) > 1 else ""
    return backend, f"{devices[0]}{others}"


def _jax_devices() -> list[str]:
    import jax

    return [f"{device.platform} ({device.device_kind})" for device in jax.devices()]


def _torch_devices() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    return [f"gpu ({torch.cuda.get_device_name(place)})" for place in range(count)] or ["cpu"]
