"""Images by PyTorch's DataLoader and Pillow, cropped and mirrored as torchvision does it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.pairs import CORES, Work
from benchmarks.peers.files import find_files

_BATCH, _SIZE = 64, 224


class Files(Dataset):
    """Pixels float32 `[3, 224, 224]` in 0..1 of the training files.

    Args:
        folder: shared by the sides.
        augment: whether to crop and mirror, else to take the centred square.
    """

    def __init__(self, folder: Path, augment: bool) -> None:
        # Two of ten are held out, see `files.write_table`.
        self.paths = [path for n, path in enumerate(find_files(folder)) if n % 10 < 8]
        self.augment = augment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(self.paths[index]).convert("RGB")
        box = self._drawn(*image.size) if self.augment else self._centre(*image.size)
        pixels = image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC, box=box)
        if self.augment and torch.rand(()) < 0.5:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous().float().div(255)

    def _centre(self, width: int, height: int) -> tuple[int, int, int, int]:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def _drawn(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Draws our own crop: aspect 3/4 to 4/3, sides 0.8 to 1 of the largest that fits."""
        aspect = math.exp((2 * torch.rand(()).item() - 1) * math.log(4 / 3))
        shrink = math.sqrt(0.64 + 0.36 * torch.rand(()).item())
        largest = min(width, height * aspect)
        wide, high = round(largest * shrink), round(largest / aspect * shrink)
        left = int(torch.randint(width - wide + 1, ()))
        top = int(torch.randint(height - high + 1, ()))
        return left, top, left + wide, top + high


def loader(folder: Path, augment: bool) -> Work:
    """Opens an epoch of batches; the processes of the loader stay from epoch to epoch."""
    torch.set_num_threads(1)
    rows = Files(folder, augment)
    batches = DataLoader(
        rows, _BATCH, shuffle=augment, drop_last=augment, num_workers=CORES, persistent_workers=True
    )
    means = [255 * batch.mean(dim=(0, 2, 3)).numpy() for batch in batches]

    def call() -> None:
        for _ in batches:
            pass

    return Work(call, np.mean(means, axis=0), sum(len(batch) for batch in batches))
