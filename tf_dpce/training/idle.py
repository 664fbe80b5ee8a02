"""What steps do to a row that they pass over, for any number of steps at once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class IdleSteps:
    """Products of the 2x2 matrices of successive steps, looked up instead of multiplied.

    Each matrix acts on (weight, motion). In coordinates that move along with the steps all of
    them are diagonal, so that a product is two quotients of running products. The first axis
    follows the ratio of motion to weight that steps lead to, found forwards; the second one is
    the motion that dies out before the last step, found backwards. Both are followed the way in
    which errors shrink.

    Args:
        steps: float64 `[T, 2, 2]`, of every step from the first. Their eigenvalues are real and
            above 0.
    """

    def __init__(self, steps: np.ndarray) -> None:
        ratio, stay, fade = _forwards(steps)
        lead = _backwards(steps[:, 0, 1], stay, fade)
        sums = [np.cumsum([0.0, *np.log(values)]) for values in (stay, fade)]
        self._table = tf.constant(np.stack([ratio, lead, *sums], axis=1))

    def __call__(self, since: tf.Tensor, now: tf.Tensor) -> list[tf.Tensor]:
        """Returns the entries, float32 `[N]` each, of the product of steps `since` to `now` - 1.

        Args:
            since: int64 `[N]`.
            now: int64 scalar.
        """
        ratio, lead, stay, fade = tf.unstack(tf.gather(self._table, since), axis=1)
        ratio_now, lead_now, stay_now, fade_now = tf.unstack(self._table[now])
        stay, fade = tf.exp(stay_now - stay), tf.exp(fade_now - fade)
        slow, fast = stay * (1 - ratio * lead), fade * ratio
        entries = [
            slow + lead_now * fast,
            stay * lead - lead_now * fade,
            ratio_now * slow - (1 - ratio_now * lead_now) * fast,
            ratio_now * stay * lead + (1 - ratio_now * lead_now) * fade,
        ]
        return [tf.cast(entry, tf.float32) for entry in entries]


def _forwards(steps: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Returns the ratio before each step and after the last, and what both axes shrink to."""
    ratio, stay, fade = [0.0], [], []
    for (a, b), (c, d) in steps.tolist():
        stay.append(a + b * ratio[-1])
        ratio.append((c + d * ratio[-1]) / stay[-1])
        fade.append(d - ratio[-1] * b)
    return ratio, stay, fade


def _backwards(couplings: np.ndarray, stay: list[float], fade: list[float]) -> list[float]:
    """Returns how far the dying motion still leads, before each step and after the last."""
    lead = [0.0]
    for coupling, kept, faded in zip(couplings.tolist()[::-1], stay[::-1], fade[::-1], strict=True):
        lead.append((coupling + lead[-1] * faded) / kept)
    return lead[::-1]
