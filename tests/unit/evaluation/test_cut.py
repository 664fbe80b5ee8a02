"""Axes along which embeddings can be cut."""

from __future__ import annotations

import numpy as np
import pytest

from tf_dpce.evaluation.cut import cut, principal_axes


def test_what_lies_in_a_plane_needs_two_numbers():
    # Unit vectors in a plane of six dimensions that no axis lies in, thrice as many texts.
    draw = np.random.default_rng(0)
    plane = np.linalg.qr(draw.standard_normal((6, 2)))[0]
    rows = draw.standard_normal((40, 2)) @ plane.T
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    axes = principal_axes(rows[:10], rows[10:])
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-6)
    short = cut(rows @ axes, 2)
    np.testing.assert_allclose(short @ short.T, rows @ rows.T, atol=1e-5)
    assert np.abs(cut(rows, 2) @ cut(rows, 2).T - rows @ rows.T).max() > 0.1


def test_both_kinds_count_alike_however_many_there_are():
    x, y, z = np.eye(3, dtype=np.float32)
    # Two images along z, a hundred texts along x and y: z holds half of all squares, x 0.3.
    axes = principal_axes(np.stack([z, z]), np.stack([x] * 60 + [y] * 40))
    np.testing.assert_allclose(np.abs(axes.T), [z, x, y], atol=1e-6)
    # The mean is not subtracted: it is the first axis of vectors that hardly differ.
    assert abs(principal_axes(np.stack([x, x]), np.stack([x, x]))[:, 0] @ x) == pytest.approx(1)
