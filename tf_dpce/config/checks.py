"""What the types of a configuration allow and no run can use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tf_dpce.config.sections import Config
from tf_dpce.errors import UserError

_COUNTS = (
    *("input_size", "max_length", "embedding_dim", "blocks", "output_dim"),
    *("batch_size", "views", "validate_every", "candidates", "members"),
)
_AMOUNTS = (
    *("checkpoint_minutes", "epochs", "decay_epochs", "warmup_epochs", "learning_rate", "margin"),
    *(
        "weight_decay",
        "backbone_multiplier",
        "word_multiplier",
        "classifier_multiplier",
        "head_dim",
    ),
    *("classifier_bias_multiplier", "gamma_multiplier", "image_instance", "text_instance", "pair"),
    *("sampled_negatives", "backbone_bias_multiplier", "backbone_gamma_multiplier"),
    "backbone_first_multiplier",
)
# What a number may be, in words and as a test, by its own name, which no two sections share.
ALLOWED: dict[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(_COUNTS, ("1 or more", lambda value: value >= 1)),
    **dict.fromkeys(_AMOUNTS, ("0 or more", lambda value: 0 <= value < math.inf)),
    **dict.fromkeys(
        ("word_dropout", "dropout", "tower_dropout", "average"),
        ("from 0 to below 1", lambda value: 0 <= value < 1),
    ),
    # A residual block squeezes to a quarter of its width.
    "widths": ("4 or more", lambda value: value >= 4),
    "temperature": ("above 0", lambda value: 0 < value < math.inf),
    "seed": (f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32),
}


def check_values(config: Config, values: dict[str, Any]) -> None:
    """Refuses a number or a mix of keys that no run can use.

    Args:
        config: to judge.
        values: the same as nested dicts.

    Raises:
        UserError: which key, and what it may be.
    """
    _check_numbers(values)
    text, groups = config.text, len(config.text.blocks)
    if text.tower == "convolutional" and not groups == len(text.widths) > 0:
        raise UserError(
            f"configuration: text.blocks names {groups} groups and text.widths "
            f"{len(text.widths)}: give one width for each group of blocks"
        )
    _check_members(config)
    for number in (1, 2):
        loss = config.stage(number).loss
        if not (loss.image_instance or loss.text_instance or loss.pair):
            raise UserError(
                f"configuration: the weights in stage{number}.loss are all 0: give image_instance, "
                "text_instance or pair one above 0"
            )


def _check_members(config: Config) -> None:
    members, width = config.model.members, config.model.output_dim
    if members > 1 and config.text.tower != "convolutional":
        raise UserError(
            f"configuration: model.members {members} needs the text tower convolutional, not "
            f"{config.text.tower}: give --model.members 1"
        )
    if width % members:
        raise UserError(
            f"configuration: model.members {members} does not divide model.output_dim {width}: "
            f"give --model.output_dim {width - width % members or members}"
        )


def _check_numbers(values: dict[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _check_numbers(value, f"{prefix}{name}.")
        elif name in ALLOWED and value is not None:
            allowed, allows = ALLOWED[name]
            if not all(map(allows, value if isinstance(value, list) else [value])):
                raise UserError(f"configuration: {prefix}{name} cannot be {value}: give {allowed}")
