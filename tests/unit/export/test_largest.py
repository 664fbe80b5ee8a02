"""What a batch of the largest images adds to a server's memory, for every kind of image."""

from __future__ import annotations

import pytest

from tests.unit.export.largest import BATCH, KINDS, added_mebibytes

# docs/export.md and docs/serving.md say so.
MOST_MEBIBYTES = 2_500


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["center_crop", "stretch"])
def test_a_batch_of_the_largest_images_is_bounded(resize, capsys):
    added = {kind: added_mebibytes(kind, resize) for kind in KINDS}
    with capsys.disabled():
        print(f"\n{BATCH} of the largest images, {resize}:")
        for kind, mebibytes in added.items():
            print(f"{kind:24} + {mebibytes:5,} MiB")
    assert max(added.values()) < MOST_MEBIBYTES
