"""The network of the steps that are compared, in PyTorch, with weights by their names in Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tf_dpce.config import Config, StageConfig

# Expansion, width, blocks and stride of the groups of MobileNetV2.
_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Normed(nn.Module):
    """A product with a matrix, or a causal convolution over `[B, C, T]`, then BatchNorm."""

    def __init__(self, inside: int, width: int, kernel: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, inside, *([kernel] if kernel else [])))
        self.norm = nn.BatchNorm1d(width, eps=1e-3, momentum=0.05)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.kernel:
            return self.norm(functional.linear(x, self.weight))
        padded = functional.pad(x, (self.kernel - 1, 0))
        return self.norm(functional.conv1d(padded, self.weight, stride=self.stride))


class NormedRows(Normed):
    """The same over `[B, T, C]`, as one product with all rows: what our layers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.kernel:
            return super().forward(x)
        padded = functional.pad(x, (0, 0, self.kernel - 1, 0))
        seen = [padded[:, k : k + x.shape[1] : self.stride] for k in range(self.kernel)]
        matrix = self.weight.permute(2, 1, 0).reshape(-1, self.weight.shape[0])
        product = torch.cat(seen, dim=-1) @ matrix
        return self.norm(product.flatten(0, 1)).unflatten(0, product.shape[:2])


class TextTower(nn.Module):
    """Token ids `[B, T]` to features `[B, D]`.

    Args:
        config: whose tower it is.
        words: V.
        rows: whether it computes over `[B, T, C]`.
    """

    def __init__(self, config: Config, words: int, rows: bool) -> None:
        super().__init__()
        text, self.rows = config.text, rows
        self.embedding = nn.Embedding(words + 1, text.word_dim, padding_idx=0)
        self.bias = nn.Parameter(torch.empty(text.word_dim))
        self.norm = nn.BatchNorm1d(text.word_dim, eps=1e-3, momentum=0.05)
        self.parts, self.blocks = nn.ModuleDict(), []
        normed, inside = NormedRows if rows else Normed, text.word_dim
        for group, (count, width) in enumerate(zip(text.blocks, text.widths, strict=True)):
            for block in range(count):
                name = f"text_{group + 1}_{block + 1}"
                middle = width // 4 if block else width if group else width // 2
                stride = 2 if block == 0 and group in (1, 2) else 1
                self.parts[f"{name}_a"] = normed(inside, middle, 1)
                self.parts[f"{name}_b"] = normed(middle, middle, 2, stride)
                self.parts[f"{name}_c"] = normed(middle, width, 1)
                if block == 0:
                    self.parts[f"{name}_shortcut"] = normed(inside, width, 1, stride)
                self.blocks.append((name, block == 0))
                inside = width
        self.parts["text_fc"] = Normed(inside, config.model.output_dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        words = self.embedding(ids) + self.bias
        x = self.norm(words.flatten(0, 1)).unflatten(0, words.shape[:2])
        x = x if self.rows else x.transpose(1, 2).contiguous()
        for name, projects in self.blocks:
            y = self.parts[f"{name}_a"](x).relu()
            y = self.parts[f"{name}_c"](self.parts[f"{name}_b"](y).relu())
            x = (y + (self.parts[f"{name}_shortcut"](x) if projects else x)).relu()
        return self.parts["text_fc"](x.amax(dim=1 if self.rows else 2))


class MobileNetV2(nn.Module):
    """Pixels `[B, 3, S, S]` in 0..255 to features `[B, 1280]`; BatchNorm keeps its averages."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.blocks = nn.ModuleDict(), []
        self._add("Conv1", "bn_Conv1", _convolution(3, 32, 3, stride=2))
        inside, number = 32, 0
        for expansion, width, count, first in _MOBILENET:
            for block in range(count):
                name = f"block_{number}" if number else "expanded_conv"
                middle, stride = expansion * inside, 1 if block else first
                if number:
                    self._add(f"{name}_expand", f"{name}_expand_BN", _convolution(inside, middle))
                depthwise = _convolution(middle, middle, 3, stride, groups=middle)
                self._add(f"{name}_depthwise", f"{name}_depthwise_BN", depthwise)
                self._add(f"{name}_project", f"{name}_project_BN", _convolution(middle, width))
                self.blocks.append((name, stride == 1 and inside == width))
                inside, number = width, number + 1
        self._add("Conv_1", "Conv_1_bn", _convolution(inside, 1280))

    def _add(self, name: str, norm: str, convolution: nn.Conv2d) -> None:
        self.parts[name] = convolution
        self.parts[norm] = nn.BatchNorm2d(convolution.out_channels, eps=1e-3)

    def _run(self, x: torch.Tensor, name: str, norm: str) -> torch.Tensor:
        convolution = self.parts[name]
        if convolution.stride == (2, 2):
            x = functional.pad(x, (0, 1, 0, 1))
        return self.parts[norm](convolution(x))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._run(pixels / 127.5 - 1, "Conv1", "bn_Conv1"))
        for name, adds in self.blocks:
            y = x
            for part in ("expand", "depthwise"):
                if f"{name}_{part}" in self.parts:
                    y = functional.relu6(self._run(y, f"{name}_{part}", f"{name}_{part}_BN"))
            y = self._run(y, f"{name}_project", f"{name}_project_BN")
            x = x + y if adds else y
        x = functional.relu6(self._run(x, "Conv_1", "Conv_1_bn"))
        return x.mean(dim=(2, 3))

    def train(self, mode: bool = True) -> MobileNetV2:
        return super().train(False)


def _convolution(
    inside: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    # With a stride of 2 pixels are padded at their end, before the convolution.
    padding = 0 if stride == 2 else kernel // 2
    return nn.Conv2d(inside, width, kernel, stride, padding, groups=groups, bias=False)


class DualPath(nn.Module):
    """Both towers and the classifier, up to the loss of a stage.

    Args:
        config: whose network it is.
        stage: whose losses it has.
        words: V.
        classes: C.
        rows: see `TextTower`.
    """

    def __init__(
        self, config: Config, stage: StageConfig, words: int, classes: int, rows: bool
    ) -> None:
        super().__init__()
        self.loss, self.rectified = stage.loss, config.model.relu_before_losses
        self.backbone = MobileNetV2() if stage.backbone == "trained" else nn.Identity()
        width, inside = config.model.output_dim, 1280
        self.head = nn.ModuleDict()
        if config.image.head_dim:
            self.head["image_fc1"] = Normed(inside, config.image.head_dim)
            inside = config.image.head_dim
        self.head["image_fc2"] = Normed(inside, width)
        self.text_tower = TextTower(config, words, rows)
        self.kernel = nn.Parameter(torch.empty(width, classes))
        self.bias = (
            nn.Parameter(torch.empty(classes)) if config.model.classifier_bias == "shared" else None
        )

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, instance: torch.Tensor
    ) -> torch.Tensor:
        features = self.backbone(image)
        if "image_fc1" in self.head:
            features = self.head["image_fc1"](features).relu()
        both = [self.head["image_fc2"](features), self.text_tower(text)]
        if self.rectified:
            both = [features.relu() for features in both]
        total = torch.zeros(())
        for features, weight in zip(
            both, (self.loss.image_instance, self.loss.text_instance), strict=True
        ):
            logits = features @ self.kernel
            logits = logits if self.bias is None else logits + self.bias
            total = total + weight * functional.cross_entropy(logits, instance)
        if self.loss.pair:
            total = total + self.loss.pair * self._contrastive(*both, instance)
        return total

    def _contrastive(
        self, image: torch.Tensor, text: torch.Tensor, instance: torch.Tensor
    ) -> torch.Tensor:
        image, text = (x * torch.rsqrt(1e-8 + (x * x).sum(1, keepdim=True)) for x in (image, text))
        scores = image @ text.T / self.loss.temperature
        own = torch.eye(len(scores), dtype=torch.bool)
        twins = (instance[:, None] == instance[None, :]) & ~own
        scores = scores.masked_fill(twins, -1e9)
        right = torch.arange(len(scores))
        both = (functional.cross_entropy(each, right) for each in (scores, scores.T))
        return sum(both) / 2


def load_weights(network: DualPath, weights: Mapping[str, np.ndarray]) -> None:
    """Gives every parameter and average its value; a name that is missing or left over fails.

    Args:
        network: whose weights are replaced.
        weights: arrays by PART|LAYER|WEIGHT, of a model with or without a backbone.
    """
    targets = dict(_targets(network))
    with torch.no_grad():
        for name, value in weights.items():
            part, *layer, kind = name.split("|")
            if part != "image_backbone" or isinstance(network.backbone, MobileNetV2):
                target = targets.pop("|".join([*layer, kind]))
                target.copy_(torch.from_numpy(np.ascontiguousarray(_turned(value, kind, layer))))
        network.text_tower.embedding.weight[0] = 0
    if targets:
        raise ValueError(f"No value for {sorted(targets)}")


def _turned(value: np.ndarray, kind: str, layer: list[str]) -> np.ndarray:
    """Returns a kernel with its axes as in PyTorch."""
    if kind != "kernel" or not layer:
        return value
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if layer[0].endswith("depthwise") else (3, 2, 0, 1))
    return value.T


def _targets(network: DualPath) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields what holds a weight of Keras, by LAYER|WEIGHT."""
    yield "kernel", network.kernel
    if network.bias is not None:
        yield "bias", network.bias
    text = network.text_tower
    yield "text_embedding|embeddings", text.embedding.weight[1:]
    yield "text_embedding|bias", text.bias
    yield from _norm("text_embedding_bn", text.norm)
    for parts in (network.head, text.parts):
        for name, part in parts.items():
            yield f"{name}|kernel", part.weight
            yield from _norm(f"{name}_bn", part.norm)
    for name, part in getattr(network.backbone, "parts", {}).items():
        if isinstance(part, nn.Conv2d):
            yield f"{name}|kernel", part.weight
        else:
            yield from _norm(name, part)


def _norm(name: str, norm: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}|gamma", norm.weight
    yield f"{name}|beta", norm.bias
    yield f"{name}|moving_mean", norm.running_mean
    yield f"{name}|moving_variance", norm.running_var
