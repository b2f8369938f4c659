"""Captions that are true of the picture, in the closed vocabulary, of at most MAX_WORDS words."""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import MAX_OBJECTS, SceneLayout
from .vocabulary import COLOURS, FLOORS, LARGE_WORDS, SHAPE_SYNONYMS, SHAPES, SMALL_WORDS, WALLS

MAX_WORDS = 16
_ONE_OPENINGS = (
    "",
    "",
    "",
    "",
    "",
    "one",
    "there is",
    "a photo of",
    "a picture of",
    "an image of",
    "a scene with",
    "a room with",
)
_MANY_OPENINGS = ("", "", "", "", "", "there is", "a photo of", "a room with")


def captions(layout: SceneLayout) -> list[str]:
    """One caption a scene; every object of the scene is named, and nothing else."""
    return [_caption(layout, row) for row in range(len(layout))]


def _caption(layout: SceneLayout, row: int) -> str:
    dice = layout.phrase[row].tolist()
    present = [slot for slot in range(MAX_OBJECTS) if bool(layout.exists[row, slot])]
    with_size, with_pattern = dice[0] < 0.5, dice[1] < 0.7
    nouns = {slot: _noun(layout, row, slot, with_size, with_pattern, dice[12 + slot]) for slot in present}
    floor = f"on a {FLOORS[int(layout.floor[row])]} floor"
    wall = WALLS[int(layout.wall[row])]

    if len(present) == 1:
        subject, relation = _one(layout, row, present[0], nouns, dice), ""
        openings = _ONE_OPENINGS
    else:
        relation = _relation(layout, row, present, dice) if len(present) == 2 and dice[4] < 0.5 else ""
        subject = _many(nouns, present, relation, swap=relation == "" and dice[5] < 0.5)
        openings = _MANY_OPENINGS
    opening = openings[int(dice[2] * len(openings))] if not relation else ""
    walls = (f"{wall} wall", f"with a {wall} wall", f"in front of a {wall} wall", f"and a {wall} wall")

    parts = [opening, subject]
    if dice[6] < 0.6:
        parts.append(floor)
    if dice[7] < 0.45:
        style = int(dice[8] * 3) if len(parts) == 3 else (2 if len(present) == 1 and dice[8] < 0.4 else 1)
        if len(present) > 1 and style == 2:
            style = 1
        parts.append(walls[style])
    return _fit(parts, opening)


def _noun(layout: SceneLayout, row: int, slot: int, with_size: bool, with_pattern: bool, die: float) -> str:
    shape = SHAPES[int(layout.shape[row, slot])]
    if die < 0.15:
        shape = SHAPE_SYNONYMS.get(shape, shape)
    words = []
    if with_size:
        sizes = LARGE_WORDS if bool(layout.large[row, slot]) else SMALL_WORDS
        words.append(sizes[int(die > 0.75)])
    if with_pattern and bool(layout.striped[row, slot]):
        words.append("striped")
    words += [COLOURS[int(layout.colour[row, slot])], shape]
    return " ".join(words)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _one(layout: SceneLayout, row: int, slot: int, nouns: dict[int, str], dice: list[float]) -> str:
    centre = float(layout.bounds[row, slot, 0::2].mean())
    place = ""
    if dice[3] < 0.3:
        if centre < -0.3:
            place = " on the left"
        elif centre > 0.3:
            place = " on the right"
        elif abs(centre) < 0.15:
            place = " in the middle"
    noun = nouns[slot]
    opening = _ONE_OPENINGS[int(dice[2] * len(_ONE_OPENINGS))]
    return (noun if opening == "one" else _article(noun)) + place


def _many(nouns: dict[int, str], present: list[int], relation: str, swap: bool) -> str:
    if relation:
        first, second = int(relation[0]), int(relation[1])
        return f"{_article(nouns[first])} {relation[3:]} {_article(nouns[second])}"
    order = present[::-1] if swap else present
    named = [_article(nouns[slot]) for slot in order]
    return " ".join(named[:-1]) + " and " + named[-1]


def _relation(layout: SceneLayout, row: int, present: list[int], dice: list[float]) -> str:
    """A relation as "<slot><slot> words", empty where none holds clearly."""
    first, second = present if dice[9] < 0.5 else present[::-1]
    bounds = layout.bounds[row]
    depth = layout.position[row, :, 1]
    apart = float(bounds[first, 0::2].mean() - bounds[second, 0::2].mean())
    shared = float(
        torch.minimum(bounds[first, 2], bounds[second, 2])
        - torch.maximum(bounds[first, 0], bounds[second, 0])
    )
    narrow = float((bounds[:, 2] - bounds[:, 0])[[first, second]].min())
    nearer = float(depth[second] - depth[first])
    options = []
    if shared < 0.25 * narrow and abs(apart) > 0.3:
        options.append("to the left of" if apart < 0 else "to the right of")
    if shared > 0.3 * narrow and abs(nearer) > 0.5:
        options.append("in front of" if nearer > 0 else "behind")
    return f"{first}{second} {options[0]}" if options else ""


def _fit(parts: list[str], opening: str) -> str:
    """Drop the opening, then the last part, until the caption is short enough."""
    kept = [part for part in parts if part]
    while len(" ".join(kept).split()) > MAX_WORDS:
        kept = kept[1:] if opening and kept[0] == opening and opening != "one" else kept[:-1]
    return " ".join(kept)
