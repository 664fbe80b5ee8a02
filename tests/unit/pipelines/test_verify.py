"""`verify`: it prints the checks of an exported version, and its status says whether all passed."""

from __future__ import annotations

import pytest

import tf_dpce.export.verify
from pipelines import verify
from tests.errors import printed_code
from tf_dpce.export.operations import NEWEST
from tf_dpce.export.verify import Check


def test_checks_are_printed_and_one_that_fails_is_an_error(
    tiny_export, monkeypatch: pytest.MonkeyPatch, capsys
):
    asked, passed = [], True

    def verify_version(*arguments: object) -> list[Check]:
        asked.append(arguments)
        return [Check("files", True, "all"), Check("operations", passed, "one is lacking")]

    monkeypatch.setattr(tf_dpce.export.verify, "verify_version", verify_version)
    # By the folder of the model: its newest version.
    assert verify.main([str(tiny_export)]) == 0
    assert "FAILED" not in capsys.readouterr().out
    passed = False
    assert verify.main([str(tiny_export / "1"), "--serving-version", "2.19.1"]) == 1
    printed = capsys.readouterr()
    assert printed_code(printed.err) == "verify.failed"
    lines = [line.split()[:2] for line in printed.out.splitlines()]
    assert lines == [["ok", "files"], ["FAILED", "operations"]]
    assert asked == [(tiny_export / "1", NEWEST), (tiny_export / "1", "2.19")]
