"""A run of two stages small enough for tests, as a command line."""

from __future__ import annotations

from pathlib import Path

from tests.scenes import SIZE

EPOCHS = 2
BATCH = 4
STEPS = 48 // BATCH

# Stage 1 from cached features, dropout on; stage 2 end to end with the recipe's losses.
OPTIONS = {
    "seed": 7,
    "weights": "none",
    "image.backbone": "small",
    "image.input_size": SIZE,
    "image.head_dim": 8,
    "text.max_length": 40,
    "text.word_dim": 8,
    "text.blocks": "[1]",
    "text.widths": "[8]",
    "text.word_dropout": 0.1,
    "model.output_dim": 8,
    "model.dropout": 0.5,
    "stage1.epochs": EPOCHS,
    "stage1.batch_size": BATCH,
    "stage1.backbone": "cached",
    "stage1.cached_augmentations": 2,
    "stage1.optimizer": "adamw",
    "stage1.learning_rate": 0.01,
    "stage1.schedule": "cosine",
    "stage1.ema_momentum": 0.5,
    "stage2.epochs": EPOCHS,
    "stage2.batch_size": BATCH,
    "stage2.backbone": "trained",
    "stage2.lr_multipliers": '{"image_backbone/*": 0.1}',
    "stage2.decay_epochs": "[1]",
    "stage2.loss.pair": 2.0,
    "stage2.loss.text_instance": 0.1,
}


def arguments(data: Path, run: Path, *more: str, **options: object) -> list[str]:
    """The command line of `train`; `options` take `__` for a dot."""
    chosen = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    flags = [part for name, value in chosen.items() for part in (f"--{name}", str(value))]
    return ["--data", str(data), "--run", str(run), *flags, *more]


def run_tiny(data: Path, run: Path, *more: str, **options: object) -> int:
    """Runs `train` in this process and returns its exit status."""
    from pipelines.train import main

    return main(arguments(data, run, *more, **options))
