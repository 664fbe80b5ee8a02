"""Finds shards that are no longer what `prepare` wrote, once reading them fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_file

# What TensorFlow raises for a record whose checksum or frame is wrong; it does not name the file.
_FAULTS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError)


@contextmanager
def explain_damage(folder: Path) -> Iterator[None]:
    """Names the damaged shard if something in the block fails because of one.

    Checksums are compared only then: at the start of all work that would cost reading all data.

    Args:
        folder: the folder of prepared data.

    Raises:
        UserError: a shard is not what the manifest says.
    """
    try:
        yield
    except _FAULTS:
        for split in Manifest.load(folder).splits.values():
            for shard in split.shards:
                path = folder / shard.file
                if sha256_file(path) != shard.sha256:
                    message = f"{path} is damaged: its checksum is another: put a copy back, or "
                    raise UserError("data.shard", f"{message}run prepare again", path) from None
        raise
