"""Captions that are true of the picture, in the closed vocabulary, of at most MAX_WORDS words."""

from __future__ import annotations

from .layout import MAX_OBJECTS, SceneLayout
from .vocabulary import COLORS, FLOORS, LARGE_WORDS, SHAPE_SYNONYMS, SHAPES, SMALL_WORDS, WALLS

MAX_WORDS = 16
_ONE_OPENINGS = (
    *[""] * 5,
    "one",
    "there is",
    "a photo of",
    "a picture of",
    "an image of",
    "a scene with",
    "a room with",
)
_MANY_OPENINGS = (*[""] * 5, "there is", "a photo of", "a room with")


def captions(layout: SceneLayout) -> list[str]:
    """One caption per scene; every object of the scene is named, and nothing else."""
    return [_caption(layout, row) for row in range(len(layout))]


def _caption(layout: SceneLayout, row: int) -> str:
    dice = layout.phrase[row].tolist()
    present = [slot for slot in range(MAX_OBJECTS) if bool(layout.exists[row, slot])]
    with_size, with_pattern = dice[0] < 0.5, dice[1] < 0.7
    nouns = {slot: _noun(layout, row, slot, with_size, with_pattern, dice[12 + slot]) for slot in present}
    openings = _ONE_OPENINGS if len(present) == 1 else _MANY_OPENINGS
    opening = openings[int(dice[2] * len(openings))]

    if not present:
        opening, subject = "", "a room"
    elif len(present) == 1:
        place = _place(layout, row, present[0]) if dice[3] < 0.3 else ""
        noun = nouns[present[0]]
        subject = (noun if opening == "one" else _article(noun)) + place
    else:
        first, second = present[:2] if dice[9] < 0.5 else present[1::-1]
        relation = _relation(layout, row, first, second) if len(present) == 2 and dice[4] < 0.5 else ""
        if relation:
            subject, opening = f"{_article(nouns[first])} {relation} {_article(nouns[second])}", ""
        else:
            subject = _list([nouns[slot] for slot in (present[::-1] if dice[5] < 0.5 else present)])

    parts = [opening, subject]
    with_floor = dice[6] < 0.6
    if with_floor:
        parts.append(f"{'on' if present else 'with'} a {FLOORS[int(layout.floor[row])]} floor")
    if dice[7] < 0.45:
        parts.append(_wall(WALLS[int(layout.wall[row])], len(present) == 1, with_floor, dice[8]))
    return _fit(parts)


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
    words += [COLORS[int(layout.color[row, slot])], shape]
    return " ".join(words)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _place(layout: SceneLayout, row: int, slot: int) -> str:
    """Where in the picture a lone object is, empty where no word fits clearly."""
    center = float(layout.bounds[row, slot, 0::2].mean())
    if abs(center) > 0.3:
        return " on the left" if center < 0 else " on the right"
    return " in the middle" if abs(center) < 0.15 else ""


def _list(nouns: list[str]) -> str:
    named = [_article(noun) for noun in nouns]
    return " ".join(named[:-1]) + " and " + named[-1]


def _relation(layout: SceneLayout, row: int, first: int, second: int) -> str:
    """How the first object stands to the second in the picture, empty where no relation holds clearly."""
    bounds = layout.bounds[row, [first, second]]
    centers, widths = bounds[:, 0::2].mean(dim=1), bounds[:, 2] - bounds[:, 0]
    apart = float(centers[0] - centers[1])
    shared = float((bounds[:, 2].min() - bounds[:, 0].max()) / widths.min())
    nearer = float(layout.position[row, second, 1] - layout.position[row, first, 1])
    if shared < 0.25 and abs(apart) > 0.3:
        return "to the left of" if apart < 0 else "to the right of"
    if shared > 0.3 and abs(nearer) > 0.5:
        return "in front of" if nearer > 0 else "behind"
    return ""


def _wall(name: str, alone: bool, with_floor: bool, die: float) -> str:
    # "a cube and a cone in front of a wall" would leave open which of the two is in front.
    if alone and (die >= 2 / 3 if with_floor else die < 0.4):
        return f"in front of a {name} wall"
    return f"{name} wall" if with_floor and die < 1 / 3 else f"with a {name} wall"


def _fit(parts: list[str]) -> str:
    """Join opening, subject and details; if that is too long, without the opening, then without details."""
    opening, *kept = parts
    if opening and opening != "one":
        longer = " ".join([opening, *kept])
        if len(longer.split()) <= MAX_WORDS:
            return longer
    elif opening:
        kept = [f"{opening} {kept[0]}", *kept[1:]]
    while len(" ".join(kept).split()) > MAX_WORDS:
        kept.pop()
    return " ".join(kept)
