"""Pictures of clips with HDR or wide colors as those of an ordinary screen, which are what the model knows.

The light that an HDR screen of 1000 cd/m² shows (ITU-R BT.2100), with highlights rolled off as in ITU-R BT.2390, for a
screen whose white is HDR's reference white (203 cd/m², ITU-R BT.2408), in BT.709's colors and BT.1886's levels.
What is darker than 88 cd/m² stays as bright as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Transfer functions and primaries by their codes in ITU-T H.273, which FFmpeg has, too.
PQ, HLG, BT2020, P3_OF_CINEMA, DISPLAY_P3 = 16, 18, 9, 11, 12
#: cd/m²: the brightest that is told from white, HDR's reference white, and what a code of 1 is in PQ.
_PEAK, _WHITE, _PQ_PEAK = 1000.0, 203.0, 10000.0
#: Of SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
#: Of hybrid log-gamma, for a screen of 1000 cd/m².
_A, _SYSTEM_GAMMA = 0.17883277, 1.2
_B, _C = 1 - 4 * _A, 0.5 - _A * float(np.log(4 * _A))
#: BT.1886 without black level.
_GAMMA = 2.4
#: Luminance of BT.2020's red, green and blue.
_LUMINANCE = (0.2627, 0.6780, 0.0593)
_FROM_P3 = ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274))
#: To BT.709: from BT.2020 as in ITU-R BT.2087, with more digits; from P3 by the primaries of both (SMPTE EG 432-1).
#: That of cinemas has another white, which eyes adapt to, and the same primaries.
TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    P3_OF_CINEMA: _FROM_P3,
    DISPLAY_P3: _FROM_P3,
}
#: Rows that are worked on at once, so that large pictures need little memory.
_ROWS = 128


def to_sdr(codes: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """A picture in BT.709 for an ordinary screen.

    Args:
        codes: (H, W, 3) uint16, all levels of red, green and blue as they are stored.
        transfer: `PQ`, `HLG`, or anything else for the levels of an ordinary screen.
        primaries: one of `TO_BT709`, or anything else for BT.709.

    Returns:
        (H, W, 3) uint8.
    """
    made = np.empty(codes.shape, np.uint8)
    for start in range(0, len(codes), _ROWS):
        part = torch.from_numpy(codes[start : start + _ROWS].astype(np.float32)) / 65535
        if transfer in (PQ, HLG):
            light = pq_light(part) if transfer == PQ else hlg_light(part)
            shown = roll_off(light) / _WHITE
        else:
            shown = part**_GAMMA
        if primaries in TO_BT709:
            shown = shown @ shown.new_tensor(TO_BT709[primaries]).T
        levels = shown.clamp(0, 1) ** (1 / _GAMMA) * 255
        made[start : start + _ROWS] = levels.round().to(torch.uint8).numpy()
    return made


def pq_light(codes: Tensor) -> Tensor:
    """Light in cd/m² of codes in [0, 1] of the perceptual quantizer."""
    root = codes ** (1 / _M2)
    return _PQ_PEAK * ((root - _C1).clamp(min=0) / (_C2 - _C3 * root)) ** (1 / _M1)


def pq_codes(light: Tensor) -> Tensor:
    """Codes in [0, 1] of light in cd/m²."""
    power = (light / _PQ_PEAK) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_light(codes: Tensor) -> Tensor:
    """Light in cd/m² on a screen of 1000 cd/m², of codes (..., 3) in [0, 1] of hybrid log-gamma, in BT.2020."""
    scene = torch.where(codes <= 0.5, codes**2 / 3, (((codes - _C) / _A).exp() + _B) / 12)
    luminance = (scene @ scene.new_tensor(_LUMINANCE)).clamp(min=1e-9)
    return _PEAK * luminance[..., None] ** (_SYSTEM_GAMMA - 1) * scene


def roll_off(light: Tensor) -> Tensor:
    """Light (..., 3) in cd/m², up to `_PEAK`, as light up to `_WHITE`, in the same hue: the EETF of BT.2390.

    It is worked out for the brightest of red, green and blue, by which all three are scaled.
    """
    peak, white = pq_codes(light.new_tensor([_PEAK, _WHITE])).tolist()
    most = white / peak
    knee = 1.5 * most - 0.5
    brightest = light.amax(-1, keepdim=True).clamp(min=1e-9)
    code = (pq_codes(brightest) / peak).clamp(max=1)
    t = ((code - knee) / (1 - knee)).clamp(min=0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    rolled = torch.where(code < knee, brightest, pq_light(spline * peak))
    return light * (rolled / brightest)
