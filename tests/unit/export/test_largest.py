"""What a batch of the largest images adds to a server's memory, for every kind of image.

A process tells the most that it ever held, which hides what comes after, so each kind of image
has one of its own. It decodes a batch of 16 by the graph of an export.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.heavy import blank_jpeg, blank_png, peak_mebibytes
from tf_dpce.config import Resize

BATCH = 16
SIZE = 224
SIDE = 8_000  # of a square of 64 million pixels
# docs/export.md and docs/serving.md say so.
MOST_MEBIBYTES = 2_500

KINDS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: blank_png(SIDE, SIDE),
    "PNG, interlaced": lambda: blank_png(SIDE, SIDE, interlaced=True),
    "PNG, lying banner": lambda: blank_png(1_000_000, 64),
    "PNG, standing banner": lambda: blank_png(64, 1_000_000),
    "JPEG": lambda: blank_jpeg(SIDE, SIDE),
    "JPEG, lying banner": lambda: blank_jpeg(65_500, 447),
    "JPEG, progressive": lambda: blank_jpeg(SIDE, SIDE, progressive=True),
    "JPEG, progressive CMYK": lambda: blank_jpeg(SIDE, SIDE, "CMYK", progressive=True),
}


def added_mebibytes(kind: str, resize: Resize) -> int:
    """Returns what a batch of the largest images of a kind adds to a process of its own."""
    command = [sys.executable, "-m", "tests.unit.export.test_largest", resize]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Made here: it costs as much there.
    content = KINDS[kind]()
    done = subprocess.run(command, env=quiet, input=content, capture_output=True, check=True)
    return int(done.stdout)


def _measure(content: bytes, resize: Resize) -> int:
    import tensorflow as tf

    from tf_dpce.export.serving_module import decode_images, input_signature

    # As many at a time as on a server with more cores.
    tf.config.threading.set_inter_op_parallelism_threads(8)
    graph = tf.function(
        lambda contents: decode_images(contents, SIZE, resize),
        input_signature=input_signature("encode_image"),
    )
    graph(tf.constant([blank_png(300, 200), blank_jpeg(300, 200)]))
    before = peak_mebibytes()
    _, codes = graph(tf.constant([content] * BATCH))
    if codes.numpy().any():
        raise ValueError(f"it has the statuses {codes.numpy().tolist()}")
    return peak_mebibytes() - before


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["center_crop", "stretch"])
def test_a_batch_of_the_largest_images_is_bounded(resize, capsys):
    added = {kind: added_mebibytes(kind, resize) for kind in KINDS}
    with capsys.disabled():
        print(f"\n{BATCH} of the largest images, {resize}:")
        for kind, mebibytes in added.items():
            print(f"{kind:24} + {mebibytes:5,} MiB")
    assert max(added.values()) < MOST_MEBIBYTES


if __name__ == "__main__":
    sys.stdout.write(f"{_measure(sys.stdin.buffer.read(), sys.argv[1])}\n")
