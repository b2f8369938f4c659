"""One picture that shows a whole result: RGB, depth, the cloud from two sides, and how it was made."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TILE_HEIGHT = 288
_GAP = 12
_PAPER, _INK, _FAINT = (250, 250, 248), (20, 20, 20), (110, 110, 110)


def contact_sheet(tiles: Sequence[tuple[str, np.ndarray]], caption: str, details: str) -> Image.Image:
    """Titled pictures (H, W, 3) uint8 in a row, brought to one height, over a caption and small print."""
    pictures = [(title, _scaled(Image.fromarray(pixels))) for title, pixels in tiles]
    title_font, caption_font, detail_font = (ImageFont.load_default(size) for size in (14, 18, 13))
    width = sum(picture.width + _GAP for _, picture in pictures) + _GAP
    letters = max(20, width // 9)
    text = textwrap.wrap(caption, letters)[:3] or ["(no prompt)"]
    small_print = textwrap.wrap(details, width // 7)[:3]
    height = _TILE_HEIGHT + 4 * _GAP + 16 + 24 * len(text) + 18 * len(small_print)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for title, picture in pictures:
        draw.text((left, _GAP), title, fill=_FAINT, font=title_font)
        sheet.paste(picture, (left, _GAP + 20))
        left += picture.width + _GAP
    top = _TILE_HEIGHT + 2 * _GAP + 22
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
    width = min(4 * _TILE_HEIGHT, max(32, round(picture.width * _TILE_HEIGHT / picture.height)))
    return picture.resize((width, _TILE_HEIGHT), Image.Resampling.BICUBIC)
