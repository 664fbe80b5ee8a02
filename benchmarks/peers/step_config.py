"""The configuration of the steps that are compared."""

from __future__ import annotations

from dataclasses import replace

from tf_dpce.config import Config, StageConfig, from_dict, preset_values

# Steps whose losses are compared. The third follows from the gradients of two.
COMPARED = 3


def step_config(
    preset: str, stage: int, batch: int, length: int | None = None
) -> tuple[Config, StageConfig]:
    """Returns a preset and its stage without what is drawn in a step, and at a constant rate.

    Args:
        preset: its name.
        stage: 1 for cached features, 2 for a trained backbone, all of it.
        batch: B.
        length: T, the number of token positions; None takes the preset's.
    """
    config = from_dict(preset_values(preset))
    config = replace(
        config,
        weights="none",
        model=replace(config.model, dropout=0.0, tower_dropout=0.0),
        text=replace(config.text, word_dropout=0.0, max_length=length or config.text.max_length),
    )
    settings = replace(
        config.stage1 if stage == 1 else config.stage2,
        **{"batch_size": batch, "backbone": "cached" if stage == 1 else "trained"},
        **{"schedule": "steps", "warmup_epochs": 0, "decay_epochs": (), "finetune_from": None},
        # Else the first steps of random weights differ by rounding alone.
        learning_rate=1e-4,
    )
    return config, settings
