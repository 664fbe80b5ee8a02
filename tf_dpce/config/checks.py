"""Checks of a configuration across its keys; the types of `sections` check each key by itself."""

from __future__ import annotations

from tf_dpce.config.sections import Config
from tf_dpce.errors import UserError


def check_values(config: Config) -> None:
    """Refuses a mix of keys that no run can use.

    Raises:
        UserError: two keys contradict one another; the message names both.
    """
    text, groups = config.text, len(config.text.blocks)
    if text.tower == "convolutional" and not groups == len(text.widths) > 0:
        raise UserError(
            "config.widths",
            f"configuration: text.blocks names {groups} groups and text.widths "
            f"{len(text.widths)}: give one width for each group of blocks",
        )
    for number in (1, 2):
        loss = config.stage(number).loss
        if not (loss.image_instance or loss.text_instance or loss.pair):
            raise UserError(
                "config.no_loss",
                f"configuration: the weights in stage{number}.loss are all 0: give image_instance, "
                "text_instance or pair one above 0",
            )
