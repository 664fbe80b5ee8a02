"""The steps that are compared: their sizes and their configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tf_dpce.config import Config, StageConfig, from_dict, preset_values

# Steps whose losses are compared. The third follows from the gradients of two.
COMPARED = 3


@dataclass(frozen=True)
class StepSettings:
    """What a step is made of.

    Attributes:
        preset: the name of a preset.
        stage: 1 for cached features, 2 for a trained backbone, all of it.
        batch: B.
        words: V.
        classes: C.
        length: T, the number of token positions; None takes the preset's.
    """

    preset: str
    stage: int
    batch: int
    words: int
    classes: int
    length: int | None = None

    def configs(self) -> tuple[Config, StageConfig]:
        """Returns preset and stage without what is drawn in a step, and at a constant rate."""
        config = from_dict(preset_values(self.preset))
        length = self.length or config.text.max_length
        config = replace(
            config,
            weights="none",
            model=replace(config.model, dropout=0.0, tower_dropout=0.0),
            text=replace(config.text, word_dropout=0.0, max_length=length),
        )
        stage = replace(
            config.stage(self.stage),
            batch_size=self.batch,
            backbone="cached" if self.stage == 1 else "trained",
            schedule="steps",
            warmup_epochs=0,
            decay_epochs=(),
            finetune_from=None,
            # Else the first steps of random weights differ by rounding alone.
            learning_rate=1e-4,
        )
        return config, stage
