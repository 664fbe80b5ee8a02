"""The training step in PyTorch, with the same weights and the same batch."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pairs import CORES, Work
from benchmarks.peers.step_config import COMPARED, StepSettings
from benchmarks.peers.torch_network import DualPath, load_weights
from tf_dpce.config import StageConfig


def step(folder: Path, compiled: bool = False, rows: bool = False, **settings: Any) -> Work:
    """Opens a step: loss, gradients and AdamW's update in its fused form.

    Args:
        folder: where our side has written weights and batch.
        compiled: whether `torch.compile` compiles the network and its loss.
        rows: see `torch_network.TextTower`.
        **settings: see `StepSettings`.
    """
    torch.set_num_threads(CORES)
    wanted = StepSettings(**settings)
    config, stage = wanted.configs()
    network = DualPath(config, stage, wanted.words, wanted.classes, rows).train()
    with np.load(folder / "weights.npz") as saved:
        load_weights(network, dict(saved))
    with np.load(folder / "batch.npz") as saved:
        image, text, instance = (torch.from_numpy(saved[n]) for n in ("image", "text", "instance"))
    if stage.backbone == "trained":
        network = network.to(memory_format=torch.channels_last)
        image = image.permute(0, 3, 1, 2)
    optimizer = _adamw(network, stage)
    loss_of = torch.compile(network) if compiled else network

    def one() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(image, text, instance)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Work(one, [one() for _ in range(COMPARED)], wanted.batch)


def _adamw(network: DualPath, stage: StageConfig) -> torch.optim.Optimizer:
    """Returns AdamW with our rates of layers and decay of matrices."""
    names = {"text_tower.embedding.weight": "text_tower/text_embedding/embeddings"}
    names |= {"text_tower.bias": "text_tower/text_embedding/bias"}
    names |= {"kernel": "instance_classifier/kernel", "bias": "instance_classifier/bias"}
    # Few groups: the fused update is called once for each.
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        ours = names.get(name, name.replace("backbone.", "image_backbone/"))
        rate = stage.learning_rate
        for pattern, factor in stage.lr_multipliers.items():
            if fnmatch.fnmatch(ours, pattern):
                rate = stage.learning_rate * factor
        decay = stage.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    listed = [{"params": p, "lr": r, "weight_decay": d} for (r, d), p in groups.items()]
    return torch.optim.AdamW(listed, eps=1e-7, fused=True)
