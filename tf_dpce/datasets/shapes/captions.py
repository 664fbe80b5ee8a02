"""True captions of a scene, and false ones: two words exchanged, or every relation turned."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

from tf_dpce.datasets.shapes import grammar

_NAMES = "ABC"
# Where x and y grow to, as seen from another group.
_AHEAD = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


class Group(NamedTuple):
    """Like objects around a centre; x grows to the right, y downwards."""

    count: int
    size: str
    colour: str
    shape: str
    x: float
    y: float


class _Relation(NamedTuple):
    """Group number `one` lies in some direction as seen from group number `other`."""

    one: int
    name: str
    other: int


class _Claim(NamedTuple):
    """All that a caption says; it does not say where a group is, but by the relations."""

    groups: tuple[Group, ...]
    relations: tuple[_Relation, ...]


class Statement(NamedTuple):
    """A true caption with two false ones.

    Attributes:
        caption: what is true.
        swapped: the same words with two of them exchanged.
        swap: what those two words are: "count", "size", "colour", "shape" or "relation".
        turned: the caption with the opposite of every relation.
    """

    caption: str
    swapped: str
    swap: str
    turned: str


def say_all(groups: Sequence[Group], draws: random.Random) -> list[Statement]:
    """Returns a true caption by each template, each with its false ones."""
    return [_say(groups, template, draws) for template in grammar.TEMPLATES]


def relation(one: Group, other: Group) -> str:
    """Returns where `one` lies as seen from `other`, along the axis of their larger distance."""
    right, down = one.x - other.x, one.y - other.y
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "below" if down > 0 else "above"


def _say(groups: Sequence[Group], template: str, draws: random.Random) -> Statement:
    horizontal, vertical = (draws.choice(ways) for ways in grammar.RELATIONS)
    numbers, sizes = draws.choice(grammar.NUMBERS), draws.choice(grammar.SIZE_WORDS)
    words = numbers | sizes | horizontal | vertical
    orders = list(permutations(groups))
    draws.shuffle(orders)
    for order in orders:
        claim = _true_claim(order, template)
        twins = [(swap, twin) for swap, twin in _exchanges(claim) if not _may_hold(twin, groups)]
        if twins:
            swap, twin = draws.choice(twins)
            caption, swapped, turned = (
                _render(said, template, words) for said in (claim, twin, _turned(claim))
            )
            return Statement(caption, swapped, swap, turned)
    raise AssertionError("every template states how two exchangeable groups lie")


def _true_claim(order: tuple[Group, ...], template: str) -> _Claim:
    relations = tuple(
        _Relation(one, relation(order[one], order[other]), other)
        for one, other in permutations(range(len(order)), 2)
        if f"{{{_field(one, other)}}}" in template
    )
    return _Claim(order, relations)


def _turned(claim: _Claim) -> _Claim:
    opposite = (item._replace(name=grammar.OPPOSITES[item.name]) for item in claim.relations)
    return claim._replace(relations=tuple(opposite))


def _exchanges(claim: _Claim) -> Iterator[tuple[str, _Claim]]:
    """Yields every grammatical claim whose caption differs by two exchanged words, and which."""
    for one, other in combinations(range(len(claim.groups)), 2):
        first, second = claim.groups[one], claim.groups[other]
        # One object and several take other nouns and verbs, which are more than two words.
        same_number = (first.count == 1) == (second.count == 1)
        for attribute in ("count", "size", "colour", "shape"):
            values = getattr(first, attribute), getattr(second, attribute)
            if values[0] != values[1] and (same_number or attribute in ("size", "colour")):
                groups = list(claim.groups)
                groups[one] = first._replace(**{attribute: values[1]})
                groups[other] = second._replace(**{attribute: values[0]})
                yield attribute, claim._replace(groups=tuple(groups))
    first, second = claim.relations
    if grammar.OPPOSITES[first.name] == second.name:
        # To exchange opposites is to turn both.
        yield "relation", _turned(claim)


def _may_hold(claim: _Claim, groups: Sequence[Group]) -> bool:
    """Returns whether a lenient reader could find the groups that a claim speaks of.

    Lenient: a group that is a little to the left may pass for left, even if it is rather above.
    """
    # By count, size, colour and shape.
    seen = {group[:4]: group for group in groups}
    meant = [seen.get(group[:4]) for group in claim.groups]
    return None not in meant and all(
        _lies(meant[item.one], item.name, meant[item.other]) for item in claim.relations
    )


def _lies(one: Group, name: str, other: Group) -> bool:
    x, y = _AHEAD[name]
    return x * (one.x - other.x) + y * (one.y - other.y) > 0


def _render(claim: _Claim, template: str, words: dict[int | str, str]) -> str:
    fields = {}
    for name, group in zip(_NAMES, claim.groups, strict=True):
        several = group.count > 1
        noun = grammar.SHAPES[group.shape] if several else group.shape
        fields[name] = f"{words[group.count]} {words[group.size]} {group.colour} {noun}"
        fields[f"{name} is"] = "are" if several else "is"
        fields[f"{name} it"] = "them" if several else "it"
    for item in claim.relations:
        fields[_field(item.one, item.other)] = words[item.name]
    return template.format_map(fields)


def _field(one: int, other: int) -> str:
    return f"{_NAMES[one]}>{_NAMES[other]}"
