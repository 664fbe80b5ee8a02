"""Published recalls of the protocols, beside which a measurement is shown."""

from __future__ import annotations

import csv
from importlib.resources import files

from tf_dpce.data.manifest import Manifest
from tf_dpce.datasets.expected_sizes import PUBLISHED

_KARPATHY = {"flickr8k": "flickr8k", "flickr30k": "flickr30k", "coco": "mscoco"}


def published_rows(manifest: Manifest, split: str, protocol: str) -> list[dict[str, str]]:
    """Returns the rows of `published.csv` that a measurement can be shown beside.

    Args:
        manifest: of the prepared data that was scored.
        split: the split that was scored. If it has not as many images as the published test, there
            are no rows: among fewer images everything is found more easily.
        protocol: the protocol by which it was scored.
    """
    dataset, images = _dataset(manifest)
    if manifest.splits[split].images != images:
        return []
    with files(__package__).joinpath("published.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if (row["dataset"], row["protocol"]) == (dataset, protocol)]


def _dataset(manifest: Manifest) -> tuple[str, int]:
    """Returns the name of a published data set and the images of its test, or "" and 0.

    Karpathy's files do not name theirs; their sizes are far apart.
    """
    if manifest.source in PUBLISHED:
        return manifest.source, PUBLISHED[manifest.source]["test"]
    if manifest.source != "karpathy":
        return "", 0
    train = manifest.splits["train"].images
    sizes = {name: PUBLISHED[f"karpathy/{name}"] for name in _KARPATHY}
    name = min(sizes, key=lambda name: abs(sizes[name]["train"] - train))
    return _KARPATHY[name], sizes[name]["test"]
