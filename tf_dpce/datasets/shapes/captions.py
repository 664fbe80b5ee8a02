"""True captions of a scene, and the same words with two exchanged, which are false."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import NamedTuple

from tf_dpce.datasets.shapes import grammar

_NAMES = "ABC"


@dataclass(frozen=True)
class Group:
    """Like objects around a centre; x grows to the right, y downwards."""

    count: int
    size: str
    colour: str
    shape: str
    x: float
    y: float


class _Mention(NamedTuple):
    """What a caption says of one group."""

    count: int
    size: str
    colour: str
    shape: str


class _Relation(NamedTuple):
    """Mention number `one` lies in some direction as seen from mention number `other`."""

    one: int
    name: str
    other: int


class _Claim(NamedTuple):
    """All that a caption says."""

    mentions: tuple[_Mention, ...]
    relations: tuple[_Relation, ...]


class _Wording(NamedTuple):
    """The words that a caption uses throughout."""

    template: str
    numbers: dict[int, str]
    sizes: dict[str, str]
    relations: dict[str, str]


def say_all(groups: Sequence[Group], draws: random.Random) -> list[tuple[str, str]]:
    """Returns a true caption by each template, each with its false twin of two exchanged words."""
    return [_say(groups, template, draws) for template in grammar.TEMPLATES]


def relation(one: Group, other: Group) -> str:
    """Returns where `one` lies as seen from `other`, along the axis of their larger distance."""
    right, down = one.x - other.x, one.y - other.y
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "below" if down > 0 else "above"


def _say(groups: Sequence[Group], template: str, draws: random.Random) -> tuple[str, str]:
    horizontal, vertical = (draws.choice(ways) for ways in grammar.RELATIONS)
    numbers, sizes = draws.choice(grammar.NUMBERS), draws.choice(grammar.SIZE_WORDS)
    wording = _Wording(template, numbers, sizes, horizontal | vertical)
    orders = list(permutations(groups))
    draws.shuffle(orders)
    for order in orders:
        claim = _true_claim(order, template)
        twins = [twin for twin in _exchanges(claim) if not _may_hold(twin, groups)]
        if twins:
            return _render(claim, wording), _render(draws.choice(twins), wording)
    raise AssertionError("every template states how two exchangeable groups lie")


def _true_claim(order: Sequence[Group], template: str) -> _Claim:
    relations = tuple(
        _Relation(one, relation(order[one], order[other]), other)
        for one, other in permutations(range(len(order)), 2)
        if _field(one, other) in template
    )
    return _Claim(tuple(map(_mention, order)), relations)


def _exchanges(claim: _Claim) -> Iterator[_Claim]:
    """Yields every grammatical claim whose caption differs by the exchange of two words."""
    for one, other in combinations(range(len(claim.mentions)), 2):
        first, second = claim.mentions[one], claim.mentions[other]
        # One object and several take other nouns and verbs, which are more than two words.
        same_number = (first.count == 1) == (second.count == 1)
        for attribute in _Mention._fields:
            values = getattr(first, attribute), getattr(second, attribute)
            if values[0] != values[1] and (same_number or attribute in ("size", "colour")):
                mentions = list(claim.mentions)
                mentions[one] = first._replace(**{attribute: values[1]})
                mentions[other] = second._replace(**{attribute: values[0]})
                yield claim._replace(mentions=tuple(mentions))
    first, second = claim.relations
    if grammar.OPPOSITES[first.name] == second.name:
        exchanged = (first._replace(name=second.name), second._replace(name=first.name))
        yield claim._replace(relations=exchanged)


def _may_hold(claim: _Claim, groups: Sequence[Group]) -> bool:
    """Returns whether a lenient reader could find the groups that a claim speaks of.

    Lenient: a group that is a little to the left may pass for left, even if it is rather above.
    """
    of = {_mention(group): group for group in groups}
    return all(mention in of for mention in claim.mentions) and all(
        _lies(of[claim.mentions[item.one]], item.name, of[claim.mentions[item.other]])
        for item in claim.relations
    )


def _lies(one: Group, name: str, other: Group) -> bool:
    return {
        "left": one.x < other.x,
        "right": one.x > other.x,
        "above": one.y < other.y,
        "below": one.y > other.y,
    }[name]


def _render(claim: _Claim, wording: _Wording) -> str:
    fields = {}
    for name, mention in zip(_NAMES, claim.mentions, strict=True):
        several = mention.count > 1
        noun = grammar.SHAPES[mention.shape] if several else mention.shape
        number, size = wording.numbers[mention.count], wording.sizes[mention.size]
        fields[name] = f"{number} {size} {mention.colour} {noun}"
        fields[f"{name} is"] = "are" if several else "is"
        fields[f"{name} it"] = "them" if several else "it"
    for item in claim.relations:
        fields[_field(item.one, item.other)[1:-1]] = wording.relations[item.name]
    return wording.template.format_map(fields)


def _field(one: int, other: int) -> str:
    return f"{{{_NAMES[one]}>{_NAMES[other]}}}"


def _mention(group: Group) -> _Mention:
    return _Mention(group.count, group.size, group.colour, group.shape)
