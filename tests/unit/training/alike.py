"""Two runs that must have trained the same, but for rounding errors."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tests.unit.training.kills import arrays, history, newest
from tf_dpce.config import from_dict
from tf_dpce.models.build import build_model
from tf_dpce.training.run_folder import read_config

NOISE = 1e-5
# A way that is none of rounding's, by stage: more than thirty variables come that far.
FAR = {1: 1e-2, 2: 1e-3}
# By how much weights may differ, of the way that they came in twelve steps. In stage 2 they come
# less far, and BatchNorm over 8 rows in each layer of the backbone makes more of rounding errors:
# `test_replicas` holds that stage's gradients themselves to 1e-5.
# Of stage 1 the furthest that was seen is 1.1e-5, in a bias of a way of 0.002.
OF_WAY = {1: 3e-5, 2: 5e-2}
# A shift before BatchNorm. It goes through products of one place each into the two BatchNorms of
# `MEANS`, which take every mean away: no output depends on it, so that its gradient is a sum of 0,
# of which rounding is left. SGD takes a step of that size; AdamW divides by the size, so that the
# step is a share of its rate, in a direction that is chance. The means that the two BatchNorms
# keep go with it.
SHIFT = ("text_embedding_bn/beta", "text_embedding_bn_beta_average")
MEANS = ("text_1_1_a_bn/moving_mean", "text_1_1_shortcut_bn/moving_mean")
# What AdamW remembers of a gradient that is none but rounding's.
NO_GRADIENT = 1e-6


def assert_same_stage(found: Path, expected: Path, stage: int) -> None:
    """Compares all that the newest states of a stage of twelve steps hold, of two runs."""
    one, other = _compared(expected, stage), _compared(found, stage)
    assert one.keys() == other.keys()
    start = _before(expected, stage)
    ways = [
        _assert_same_way(other[key], value, start.get(key, np.zeros(())), stage, key)
        for key, value in one.items()
    ]
    assert sum(ways) > 30


def assert_same_by_adamw(found: Path, expected: Path) -> None:
    """Compares all that the newest states of a first stage by AdamW hold, of two runs."""
    one, other = _compared(expected, 1), _compared(found, 1)
    assert one.keys() == other.keys()
    apart = [key for key in one if key.endswith((*SHIFT, *MEANS))]
    assert len(apart) == 4
    for key, value in one.items():
        # Twelve steps at a rate of 0.001 may go ten times as far.
        atol = 1e-3 if key in apart else 1e-5
        np.testing.assert_allclose(other[key], value, rtol=0, atol=atol, err_msg=key)
    still = [key for key in one if key.endswith("_momentum") and abs(one[key]).max() < NO_GRADIENT]
    assert [key.split("/")[1] for key in still] == ["text_embedding_bn_beta_momentum"]


def _compared(run: Path, stage: int) -> dict[str, np.ndarray]:
    """Returns what a stage's newest state holds, but for what each replica counts for itself.

    The means of the losses are in the history. Seeds and counters of steps are integers.
    """
    stored = arrays(newest(run, stage))
    skipped = ("/total", "/count", "progress")
    return {key: value for key, value in stored.items() if not key.endswith(skipped)}


def assert_same_history(found: Path, expected: Path) -> None:
    """Compares losses and what was validated, of all epochs."""
    assert len(history(found)) == len(history(expected))
    for row, same in zip(history(found), history(expected), strict=True):
        assert float(same["loss"]) > 0 and float(same["pair_loss"]) > 0
        # A loss that is off has no value.
        known = [name for name, value in same.items() if value]
        names = [name for name in known if name.startswith("val_") or name.endswith("loss")]
        one, other = ([float(each[name]) for name in names] for each in (same, row))
        np.testing.assert_allclose(other, one, rtol=1e-5)


def _before(run: Path, stage: int) -> dict[str, np.ndarray]:
    """Returns the model's variables as a stage found them, by their names in a checkpoint."""
    if stage == 2:
        return arrays(run / "checkpoints/stage1-best.npz")
    saved = read_config(run)
    keras.utils.set_random_seed(saved["config"]["seed"])
    data = saved["data"]
    model = build_model(from_dict(saved["config"]), data["vocabulary_size"], data["num_instances"])
    return {f"{n:05d} {v.path}": v.numpy() for n, v in enumerate(model.variables)}


def _assert_same_way(
    found: np.ndarray, expected: np.ndarray, start: np.ndarray, stage: int, key: str
) -> bool:
    """Compares with how far a variable came from its start, and returns whether that is far.

    A momentum starts from 0; at the twelfth step the weights that it is computed from are already
    a little apart, so that it may be three times as far off.
    """
    if expected.dtype != np.float32:
        np.testing.assert_array_equal(found, expected, err_msg=key)
        return False
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=key)
    way = abs(expected - start).max()
    if way < NOISE:
        # What BatchNorm takes away behind it has no gradient but rounding errors.
        assert abs(found - start).max() < NOISE, key
        return False
    share = (3 if key.endswith("_momentum") else 1) * OF_WAY[stage]
    rounding = 4 * np.finfo(np.float32).eps * abs(expected).max()
    atol = share * way + rounding
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=key)
    return way > FAR[stage]
