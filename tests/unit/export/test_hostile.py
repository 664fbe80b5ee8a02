"""Hostile images cannot hurt a batch: thousands of them, in the exported graph, in a Session."""

from __future__ import annotations

import pytest

from tests.unit.export.hostile import Findings, attacked
from tf_dpce.preprocessing import status

# Four images are decoded at a time. Each, as large as its header may declare, takes 192 MB, and
# as much again while its square is cut out; the process itself takes a little below 1 GB.
MOST_MEBIBYTES = 2_500


def check_unhurt(findings: Findings) -> None:
    hurt = (findings.failed, findings.wrong_good, findings.wrong_bad)
    assert hurt == ([], 0, 0), findings
    assert findings.peak_mebibytes < MOST_MEBIBYTES


@pytest.mark.process
@pytest.mark.parametrize("version", ["exported", "stretched"])
def test_damaged_images_cost_only_their_own_rows(version, request):
    findings = attacked(request.getfixturevalue(version), count=400, seed=1)
    check_unhurt(findings)
    # 360 in batches of 12, 20 alone, 20 in two batches, and none.
    assert (findings.images, findings.calls) == (400, 30 + 20 + 2 + 1)
    # Images of nearly every fate were among them.
    fates = {status.OK, status.WRONG_TYPE, status.TOO_MANY_PIXELS, status.UNDECODABLE}
    assert set(map(int, findings.statuses)) >= fates
    # Before they were damaged, all were sound; the last four are GIF, BMP, WebP and TIFF.
    accepted = len(findings.originals) - 4
    assert findings.originals == [status.OK] * accepted + [status.WRONG_TYPE] * 4
    # The longest banners cost what other images do.
    assert findings.banners == [status.OK] * 4
    assert findings.banner_mebibytes < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("version", ["exported", "stretched"])
def test_ten_thousand_damaged_images_cost_only_their_own_rows(version, request, capsys):
    findings = attacked(request.getfixturevalue(version), count=10_000, seed=2)
    with capsys.disabled():
        print(f"\n{version}: {findings}")
    assert findings.images == 10_000
    check_unhurt(findings)
