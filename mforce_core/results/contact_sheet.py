"""One picture that shows a whole result: RGB, depth, the cloud from two sides, and how it was made."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Height of every picture on a sheet in pixels.
TILE_HEIGHT = 288

_GAP = 12
_PAPER, _INK, _FAINT = (250, 250, 248), (20, 20, 20), (110, 110, 110)


def contact_sheet(tiles: Sequence[tuple[str, np.ndarray]], caption: str, details: str) -> Image.Image:
    """Titled pictures (H, W, 3) uint8 in a row, brought to one height, over a caption and small print."""
    pictures = [(title, _scaled(Image.fromarray(pixels))) for title, pixels in tiles]
    title_font, caption_font, detail_font = (ImageFont.load_default(size) for size in (14, 18, 13))
    columns = [max(picture.width, math.ceil(title_font.getlength(title))) for title, picture in pictures]
    width = sum(columns) + _GAP * (len(columns) + 1)
    letters = max(20, width // 9)
    text = textwrap.wrap(caption, letters)[:3] or ["(no prompt)"]
    small_print = textwrap.wrap(details, width // 7)[:3]
    height = TILE_HEIGHT + 4 * _GAP + 16 + 24 * len(text) + 18 * len(small_print)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for (title, picture), column in zip(pictures, columns, strict=True):
        draw.text((left, _GAP), title, fill=_FAINT, font=title_font)
        sheet.paste(picture, (left, _GAP + 20))
        left += column + _GAP
    top = TILE_HEIGHT + 2 * _GAP + 22
    for line in text:
        draw.text((_GAP, top), line, fill=_INK, font=caption_font)
        top += 24
    for line in small_print:
        draw.text((_GAP, top), line, fill=_FAINT, font=detail_font)
        top += 18
    return sheet


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Several sheets below one another."""
    result = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), _PAPER)
    top = 0
    for sheet in sheets:
        result.paste(sheet, (0, top))
        top += sheet.height
    return result


def _scaled(picture: Image.Image) -> Image.Image:
    return picture.resize((tile_width(*picture.size), TILE_HEIGHT), Image.Resampling.BICUBIC)


def tile_width(width: int, height: int) -> int:
    """Width of the tile that shows a picture of this size; very long pictures are squeezed."""
    return min(4 * TILE_HEIGHT, max(32, round(width * TILE_HEIGHT / height)))
