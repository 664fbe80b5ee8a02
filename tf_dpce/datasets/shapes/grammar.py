"""What a scene may hold, what may be said of it, and how hard that is: all in one place."""

from __future__ import annotations

# --- What there is -------------------------------------------------------------------------------

# Groups of like objects in a scene; every caption names each of them once.
GROUPS = 3

# Scenes in a row that share counts, sizes, colours and shapes, each dealt anew to its groups: a bag
# of words can hardly tell them apart.
FAMILY = 2

# Objects in a group, with their probabilities.
COUNTS = {1: 0.6, 2: 0.3, 3: 0.1}

# Sizes, with half the side of such an object on the plane.
SIZES = {"small": 4.6, "large": 8.4}

# Colours, with their red, green and blue.
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 219),
    "yellow": (245, 208, 35),
    "purple": (142, 68, 173),
    "orange": (240, 130, 30),
}

# Shapes, with the word for several.
SHAPES = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}

# Relations between the centres of two groups, each with the same one seen from the other.
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}

# --- Where it is ---------------------------------------------------------------------------------

# Width and height of the plane.
SIDE = 64.0

# Least distance of two centres along the axis of their relation.
SEPARATION = 16.0

# How many times shorter the distance along the other axis is, so that no relation is doubtful.
DOMINANCE = 1.3

# Distance of neighbours in a group, in half sides: they may overlap a little.
SPACING = (1.7, 2.2)

# Share of the sum of their half sides by which objects of two groups may overlap.
OVERLAP = 0.3

# --- What makes it untidy ------------------------------------------------------------------------

# Fewest and most grey specks, which no caption mentions.
SPECKS = (6, 18)

# Smallest and largest radius of a speck.
SPECK_RADIUS = (0.5, 1.1)

# Largest change of red, green and blue of an object.
COLOUR_JITTER = 12

# Largest turn of an object, in degrees.
ROTATION_JITTER = 12.0

# --- What is said --------------------------------------------------------------------------------

# One caption each. `{A}` is a group, `{A is}` its verb, `{A it}` its pronoun, `{A>B}` what A is to
# B. All state what A and B are to each other, so that exchanging the two is never true again.
TEMPLATES = (
    "in this image {A} {A is} {A>B} {B} and also {A>C} {C}",
    "in the image there {A is} {A} {A>B} {B} which {B is} {B>C} {C}",
    "somewhere {A>B} {B} and also {A>C} {C} there {A is} {A}",
    "you can see {A} with {B} {B>A} {A it} and with {C} {C>A} {A it}",
    "{A>B} {B} which {B is} {B>C} {C} you can see {A}",
)

# Ways to say things, of which a caption draws one of each kind and keeps to it. Opposite relations
# differ by one word.
NUMBERS = ({1: "a", 2: "two", 3: "three"}, {1: "one", 2: "two", 3: "three"})
SIZE_WORDS = ({"small": "small", "large": "large"}, {"small": "little", "large": "big"})
RELATIONS = (
    (
        {"left": "to the left of", "right": "to the right of"},
        {"left": "left of", "right": "right of"},
    ),
    ({"above": "above", "below": "below"}, {"above": "over", "below": "under"}),
)
