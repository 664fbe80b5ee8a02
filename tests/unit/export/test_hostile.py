"""Hostile images cannot hurt a batch: thousands of them, in the exported graph, in a Session."""

from __future__ import annotations

import pytest

from tests.heavy import blank_png, peak_mebibytes
from tests.unit.export.hostile import Findings, attack, originals
from tf_dpce.export.process import open_process
from tf_dpce.preprocessing import status

# Four images are decoded at a time. Each, as large as its header may declare, takes 192 MB, and
# as much again while its square is cut out; the process itself takes a little below 1 GB.
MOST_MEBIBYTES = 2_500


def nobody_is_hurt(findings: Findings) -> bool:
    return (findings.failed, findings.wrong_good, findings.wrong_bad) == ([], 0, 0)


@pytest.mark.parametrize("version", ["exported", "squashing"])
def test_damaged_images_cost_only_their_own_rows(version, request):
    with open_process(request.getfixturevalue(version), bare=True) as served:
        findings = attack(served, count=400, seed=1)
        assert nobody_is_hurt(findings), findings
        # 360 in batches of 12, 20 alone, 20 in two batches, and none.
        assert (findings.images, findings.calls) == (400, 30 + 20 + 2 + 1)
        # Images of nearly every fate were among them.
        fates = {status.OK, status.WRONG_TYPE, status.TOO_MANY_PIXELS, status.UNDECODABLE}
        assert set(findings.statuses) >= fates
        assert peak_mebibytes(served.pid) < MOST_MEBIBYTES


def test_originals_are_sound(exported):
    with open_process(exported, bare=True) as served:
        _, statuses = served.encode("encode_image", originals())
    # The last four are GIF, BMP, WebP and TIFF.
    assert statuses.tolist() == [status.OK] * (len(statuses) - 4) + [status.WRONG_TYPE] * 4


@pytest.mark.parametrize("version", ["exported", "squashing"])
def test_the_longest_banners_cost_what_other_images_do(version, request):
    # A million pixels long; resized whole, lying ones would take 366 MiB more each.
    banners = [blank_png(1_000_000, 64, grey=True), blank_png(64, 1_000_000, grey=True)]
    with open_process(request.getfixturevalue(version), bare=True) as served:
        before = peak_mebibytes(served.pid)
        _, statuses = served.encode("encode_image", banners * 2)
        assert statuses.tolist() == [status.OK] * 4
        assert peak_mebibytes(served.pid) - before < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("version", ["exported", "squashing"])
def test_ten_thousand_damaged_images_cost_only_their_own_rows(version, request, capsys):
    with open_process(request.getfixturevalue(version)) as served:
        findings = attack(served, count=10_000, seed=2)
        peak = peak_mebibytes(served.pid)
    with capsys.disabled():
        print(
            f"\n{version}: {findings.images:,} damaged images in {findings.calls:,} calls: "
            f"{len(findings.failed)} failed calls, {findings.wrong_good} wrong rows of sound "
            f"images, peak memory {peak:,} MiB; by status {sorted(findings.statuses.items())}"
        )
    assert findings.images == 10_000
    assert nobody_is_hurt(findings), findings
    assert peak < MOST_MEBIBYTES
