"""The closed vocabulary of the captions and the meaning of each name in it."""

from __future__ import annotations

# Hue in degrees. Neighbors are far enough apart that the jitter of a color never reaches the next one.
COLOR_HUES: dict[str, float] = {
    "red": 0.0,
    "orange": 30.0,
    "yellow": 56.0,
    "green": 120.0,
    "cyan": 182.0,
    "blue": 225.0,
    "purple": 275.0,
    "pink": 325.0,
}
COLORS: tuple[str, ...] = tuple(COLOR_HUES)

SHAPES: tuple[str, ...] = ("sphere", "cube", "cylinder", "cone")
# Words a person may type for the same thing; captions use them now and then.
SHAPE_SYNONYMS: dict[str, str] = {"sphere": "ball", "cube": "box"}

FLOORS: tuple[str, ...] = ("wooden", "checkered", "tiled", "concrete")
WALLS: tuple[str, ...] = ("white", "grey", "beige", "brick")

SMALL_WORDS: tuple[str, ...] = ("small", "little")
LARGE_WORDS: tuple[str, ...] = ("large", "big")

_GRAMMAR: tuple[str, ...] = (
    "a",
    "an",
    "and",
    "behind",
    "floor",
    "front",
    "image",
    "in",
    "is",
    "left",
    "middle",
    "of",
    "on",
    "one",
    "photo",
    "picture",
    "right",
    "room",
    "scene",
    "striped",
    "the",
    "there",
    "to",
    "wall",
    "with",
)

VOCABULARY: tuple[str, ...] = tuple(
    sorted({*COLORS, *SHAPES, *SHAPE_SYNONYMS.values(), *FLOORS, *WALLS, *SMALL_WORDS, *LARGE_WORDS, *_GRAMMAR})
)
