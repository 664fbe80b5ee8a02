"""What a scene may hold, what may be said of it, and how hard that is: all in one place."""

from __future__ import annotations

# --- What there is -------------------------------------------------------------------------------

GROUPS = 3
"""Groups of like objects in a scene; every caption names each of them once."""

FAMILY = 2
"""Scenes in a row that share counts, sizes, colours and shapes, each dealt anew to its groups:
a bag of words can hardly tell them apart."""

COUNTS = {1: 0.6, 2: 0.3, 3: 0.1}
"""Objects in a group, with their probabilities."""

SIZES = {"small": 4.6, "large": 8.4}
"""Sizes, with half the side of such an object on the plane."""

COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 219),
    "yellow": (245, 208, 35),
    "purple": (142, 68, 173),
    "orange": (240, 130, 30),
}
"""Colours, with their red, green and blue."""

SHAPES = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
"""Shapes, with the word for several."""

OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
"""Relations between the centres of two groups, each with the same one seen from the other."""

# --- Where it is ---------------------------------------------------------------------------------

SIDE = 64.0
"""Width and height of the plane."""

SEPARATION = 16.0
"""Least distance of two centres along the axis of their relation."""

DOMINANCE = 1.3
"""How many times shorter the distance along the other axis is, so that no relation is doubtful."""

SPACING = (1.7, 2.2)
"""Distance of neighbours in a group, in half sides: they may overlap a little."""

OVERLAP = 0.3
"""Share of the sum of their half sides by which objects of two groups may overlap."""

# --- What makes it untidy ------------------------------------------------------------------------

SPECKS = (6, 18)
"""Fewest and most grey specks, which no caption mentions."""

SPECK_RADIUS = (0.5, 1.1)
"""Smallest and largest radius of a speck."""

COLOUR_JITTER = 12
"""Largest change of red, green and blue of an object."""

ROTATION_JITTER = 12.0
"""Largest turn of an object, in degrees."""

# --- What is said --------------------------------------------------------------------------------

TEMPLATES = (
    "in this image {A} {A is} {A>B} {B} and also {A>C} {C}",
    "in the image there {A is} {A} {A>B} {B} which {B is} {B>C} {C}",
    "somewhere {A>B} {B} and also {A>C} {C} there {A is} {A}",
    "you can see {A} with {B} {B>A} {A it} and with {C} {C>A} {A it}",
    "{A>B} {B} which {B is} {B>C} {C} you can see {A}",
)
"""One caption each. `{A}` is a group, `{A is}` its verb, `{A it}` its pronoun, `{A>B}` what A is
to B. All state what A and B are to each other, so that exchanging the two is never true again."""

NUMBERS = ({1: "a", 2: "two", 3: "three"}, {1: "one", 2: "two", 3: "three"})
SIZE_WORDS = ({"small": "small", "large": "large"}, {"small": "little", "large": "big"})
RELATIONS = (
    (
        {"left": "to the left of", "right": "to the right of"},
        {"left": "left of", "right": "right of"},
    ),
    (
        {"above": "above", "below": "below"},
        {"above": "over", "below": "under"},
    ),
)
"""Ways to say things, of which a caption draws one of each kind and keeps to it. Opposite relations
differ by one word."""
