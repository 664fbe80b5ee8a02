"""Shards that are no longer what `prepare` wrote, found where reading them fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_file

# What TensorFlow says of a record whose checksum or frame is wrong; it does not name the file.
_FAULTS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError)


@contextmanager
def told_of_damage(folder: Path) -> Iterator[None]:
    """Names the shard that is damaged, where one is and something in the block fails over it.

    Digests are compared only then: at the start of all work they would cost a reading of all data.

    Args:
        folder: of prepared data.

    Raises:
        UserError: a shard is not what the manifest says.
    """
    try:
        yield
    except _FAULTS:
        for split in Manifest.load(folder).splits.values():
            for shard in split.shards:
                if sha256_file(folder / shard.file) != shard.sha256:
                    raise UserError(
                        f"{folder / shard.file} is damaged: its checksum is another: put a copy "
                        "back, or run prepare again"
                    ) from None
        raise
