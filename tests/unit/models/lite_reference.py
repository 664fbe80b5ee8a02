"""EfficientNet-Lite written down plainly: its arrays by name, and what they compute, in NumPy."""

from __future__ import annotations

import numpy as np

# By number: blocks and width of each of the seven stages.
BLOCKS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
WIDTHS = {
    0: (16, 24, 40, 80, 112, 192, 320),
    1: (16, 24, 40, 80, 112, 192, 320),
    2: (16, 24, 48, 88, 120, 208, 352),
}
# Kernel and first stride of each stage.
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)

Arrays = dict[str, np.ndarray]


def random_arrays(number: int, seed: int = 0) -> Arrays:
    """Draws the arrays of a network whose layers do not make rounding errors larger."""
    draw, arrays = np.random.default_rng(seed), {}

    def convolution(name: str, *shape: int) -> None:
        fan_in = np.prod(shape[:2]) * (1 if name.endswith("dwconv") else shape[2])
        arrays[f"{name}/kernel"] = draw.normal(0, np.sqrt(1 / fan_in), shape)

    def norm(name: str, width: int) -> None:
        for kind, low, high in (("gamma", 0.5, 1.5), ("beta", -1, 3), ("mean", -1, 1)):
            arrays[f"{name}/{kind}"] = draw.uniform(low, high, width)
        arrays[f"{name}/variance"] = draw.uniform(0.5, 2, width)

    convolution("stem_conv", 3, 3, 3, 32)
    norm("stem_bn", 32)
    channels = 32
    for block, stage, _ in blocks(number):
        wide, width = channels * (6 if stage else 1), WIDTHS[number][stage]
        if stage:
            convolution(f"{block}_expand_conv", 1, 1, channels, wide)
            norm(f"{block}_expand_bn", wide)
        convolution(f"{block}_dwconv", KERNELS[stage], KERNELS[stage], wide, 1)
        norm(f"{block}_dwconv_bn", wide)
        convolution(f"{block}_project_conv", 1, 1, wide, width)
        norm(f"{block}_project_bn", width)
        channels = width
    convolution("top_conv", 1, 1, channels, 1280)
    norm("top_bn", 1280)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def features(arrays: Arrays, number: int, pixels: np.ndarray) -> np.ndarray:
    """Returns what the network computes of RGB in 0..255, float64 `[B, 1280]`."""
    x = _convolved((pixels.astype(np.float64) - 127) / 128, arrays["stem_conv/kernel"], 2)
    x = _relu6(_normed(x, arrays, "stem_bn"))
    for block, stage, stride in blocks(number):
        y = x
        if stage:
            y = _convolved(y, arrays[f"{block}_expand_conv/kernel"], 1)
            y = _relu6(_normed(y, arrays, f"{block}_expand_bn"))
        y = _convolved(y, arrays[f"{block}_dwconv/kernel"], stride, depthwise=True)
        y = _relu6(_normed(y, arrays, f"{block}_dwconv_bn"))
        y = _convolved(y, arrays[f"{block}_project_conv/kernel"], 1)
        y = _normed(y, arrays, f"{block}_project_bn")
        x = x + y if x.shape == y.shape else y
    x = _convolved(x, arrays["top_conv/kernel"], 1)
    return _relu6(_normed(x, arrays, "top_bn")).mean(axis=(1, 2))


def blocks(number: int) -> list[tuple[str, int, int]]:
    """Returns name, stage (from 0) and stride of each block."""
    return [
        (f"block{stage + 1}{'abcdef'[place]}", stage, 1 if place else STRIDES[stage])
        for stage, count in enumerate(BLOCKS[number])
        for place in range(count)
    ]


def _convolved(
    x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool = False
) -> np.ndarray:
    """Adds up one shifted image for each place of the kernel; the odd row of zeros is the last."""
    size, height = len(kernel), x.shape[1]
    count = -(-height // stride)
    zeros = max((count - 1) * stride + size - height, 0)
    ends = (zeros // 2, zeros - zeros // 2)
    x, total = np.pad(x, ((0, 0), ends, ends, (0, 0))), 0.0
    for row in range(size):
        for column in range(size):
            seen = x[:, row:, column:][:, : count * stride : stride, : count * stride : stride]
            weights = kernel[row, column].astype(np.float64)
            total = total + (seen * weights[:, 0] if depthwise else seen @ weights)
    return total


def _normed(x: np.ndarray, arrays: Arrays, name: str) -> np.ndarray:
    gamma, beta, mean, variance = (
        arrays[f"{name}/{kind}"].astype(np.float64)
        for kind in ("gamma", "beta", "mean", "variance")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def _relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)
