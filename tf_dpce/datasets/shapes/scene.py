"""A scene: groups of objects on a plane, drawn from a seed, and the captions true of it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import combinations, product

from tf_dpce.datasets.shapes import grammar
from tf_dpce.datasets.shapes.captions import Group, say_all

_CENTRE_TRIES = 50

# The counts, sizes, colours and shapes of a scene, not yet dealt to its groups.
_Hand = tuple[list[int], list[str], list[str], list[str]]


@dataclass(frozen=True)
class Object:
    """One drawn object; lengths are those of the plane, whose origin is at the top left."""

    shape: str
    x: float
    y: float
    half_side: float
    degrees: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Speck:
    """A grey dot of clutter."""

    x: float
    y: float
    radius: float
    grey: int


@dataclass(frozen=True)
class Scene:
    """A scene and what is said of it.

    Attributes:
        groups: what the captions speak of.
        objects: what is drawn, the hindmost first.
        specks: clutter behind the objects.
        tints: red, green and blue of the background at the top and at the bottom.
        captions: true captions, one of each template.
        swapped_captions: for each caption the same words with two exchanged, which is false.
        swaps: what these two words are: "count", "size", "colour", "shape" or "relation".
        turned_captions: for each caption the same with the opposite of every relation.
    """

    groups: tuple[Group, ...]
    objects: tuple[Object, ...]
    specks: tuple[Speck, ...]
    tints: tuple[tuple[int, int, int], tuple[int, int, int]]
    captions: tuple[str, ...]
    swapped_captions: tuple[str, ...]
    swaps: tuple[str, ...]
    turned_captions: tuple[str, ...]


def make_scene(seed: int, index: int) -> Scene:
    """Returns scene number `index` of the endless series that `seed` begins.

    Example:
        >>> make_scene(0, 7) == make_scene(0, 7), make_scene(0, 7) == make_scene(1, 7)
        (True, False)
    """
    draws = random.Random(f"scene {seed} {index}")
    hand = _hand(random.Random(f"family {seed} {index // grammar.FAMILY}"))
    groups, objects = _arrange(hand, draws)
    draws.shuffle(objects)
    captions, swapped, swaps, turned = zip(*say_all(groups, draws), strict=True)
    return Scene(
        groups=tuple(groups),
        objects=tuple(objects),
        specks=tuple(_speck(draws) for _ in range(draws.randint(*grammar.SPECKS))),
        tints=(_tint(draws), _tint(draws)),
        captions=captions,
        swapped_captions=swapped,
        swaps=swaps,
        turned_captions=turned,
    )


def _arrange(hand: _Hand, draws: random.Random) -> tuple[list[Group], list[Object]]:
    while True:
        kinds = _deal(hand, draws)
        for _ in range(_CENTRE_TRIES):
            groups = [Group(*kind, *_centre(draws)) for kind in kinds]
            if not _is_clear(groups):
                continue
            drawn = [_objects(group, draws) for group in groups]
            if _fits(drawn):
                return groups, [item for objects in drawn for item in objects]


def _hand(draws: random.Random) -> _Hand:
    kinds = list(product(grammar.COLOURS, grammar.SHAPES))
    colours, shapes = zip(*draws.sample(kinds, grammar.GROUPS), strict=True)
    counts = draws.choices(list(grammar.COUNTS), list(grammar.COUNTS.values()), k=grammar.GROUPS)
    sizes = draws.choices(list(grammar.SIZES), k=grammar.GROUPS)
    return counts, sizes, list(colours), list(shapes)


def _deal(hand: _Hand, draws: random.Random) -> list[tuple[int, str, str, str]]:
    while True:
        kinds = list(zip(*(draws.sample(values, len(values)) for values in hand), strict=True))
        # Groups of one colour and shape would run into one another in the eye.
        if len({(colour, shape) for *_, colour, shape in kinds}) == grammar.GROUPS:
            return kinds


def _centre(draws: random.Random) -> tuple[float, float]:
    return draws.uniform(0, grammar.SIDE), draws.uniform(0, grammar.SIDE)


def _objects(group: Group, draws: random.Random) -> list[Object]:
    half_side, jitter = grammar.SIZES[group.size], (-grammar.COLOUR_JITTER, grammar.COLOUR_JITTER)
    spacing = draws.uniform(*grammar.SPACING) * half_side
    # Corners of a regular polygon whose sides are the spacing.
    radius = spacing / (2 * math.sin(math.pi / group.count)) if group.count > 1 else 0.0
    start = draws.uniform(0, 2 * math.pi)
    angles = [start + 2 * math.pi * corner / group.count for corner in range(group.count)]
    return [
        Object(
            shape=group.shape,
            x=group.x + radius * math.cos(angle),
            y=group.y + radius * math.sin(angle),
            half_side=half_side,
            degrees=draws.uniform(-grammar.ROTATION_JITTER, grammar.ROTATION_JITTER),
            rgb=tuple(min(255, c + draws.randint(*jitter)) for c in grammar.COLOURS[group.colour]),
        )
        for angle in angles
    ]


def _is_clear(groups: list[Group]) -> bool:
    for one, other in combinations(groups, 2):
        shorter, longer = sorted((abs(one.x - other.x), abs(one.y - other.y)))
        if longer < grammar.SEPARATION or longer < grammar.DOMINANCE * shorter:
            return False
    return True


def _fits(groups: list[list[Object]]) -> bool:
    everything = [item for group in groups for item in group]
    inside = all(
        item.half_side <= value <= grammar.SIDE - item.half_side
        for item in everything
        for value in (item.x, item.y)
    )
    return inside and all(
        math.hypot(one.x - other.x, one.y - other.y)
        >= (1 - grammar.OVERLAP) * (one.half_side + other.half_side)
        for group, later in combinations(groups, 2)
        for one in group
        for other in later
    )


def _speck(draws: random.Random) -> Speck:
    return Speck(*_centre(draws), draws.uniform(*grammar.SPECK_RADIUS), draws.randint(60, 200))


def _tint(draws: random.Random) -> tuple[int, int, int]:
    return draws.randint(205, 250), draws.randint(205, 250), draws.randint(205, 250)
