"""Color profiles (ICC.1) made byte by byte, and what their colors are in sRGB by the matrices of CSS Color 4."""

import struct

import numpy as np

WHITE_D50 = (0.9642, 1.0, 0.8249)
#: Colorants of Display P3 in XYZ, adapted to D50, as Apple's profile has them.
DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
#: Linear Display P3 to XYZ and XYZ to linear sRGB, both of D65, as in CSS Color 4.
P3_TO_XYZ = np.array(
    [
        [608311 / 1250200, 189793 / 714400, 198249 / 1000160],
        [35783 / 156275, 247089 / 357200, 198249 / 2500400],
        [0, 32229 / 714400, 5220557 / 5000800],
    ]
)
XYZ_TO_SRGB = np.array(
    [
        [12831 / 3959, -329 / 214, -1974 / 3959],
        [-851781 / 878810, 1648619 / 878810, 36519 / 878810],
        [705 / 12673, -2585 / 12673, 705 / 667],
    ]
)


def numbers(*values):
    """ICC's numbers of 16 bits before the point and 16 behind it."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def profile(space, connection, name, **tags):
    """A display or output profile as bytes (ICC.1)."""
    text = name.encode() + b"\0"
    tags["desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags["wtpt"] = b"XYZ \0\0\0\0" + numbers(0.9505, 1.0, 1.0891)  # the screen's own, which eyes adapt to
    offset, table, content = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag.encode() + struct.pack(">II", offset + len(content), len(data))
        content += data
    kind = b"prtr" if space == "CMYK" else b"mntr"
    head = b"\0\0\0\0\x04\x20\0\0" + kind + space.ljust(4).encode() + connection.ljust(4).encode() + bytes(12) + b"acsp"
    head += bytes(28) + numbers(*WHITE_D50) + bytes(48)
    return struct.pack(">I", offset + len(content)) + head + struct.pack(">I", len(tags)) + table + content


def curve(gamma):
    return b"para\0\0\0\0\0\0\0\0" + numbers(gamma)


def colorants(values, gamma):
    tags = {f"{c}XYZ": b"XYZ \0\0\0\0" + numbers(*value) for c, value in zip("rgb", values, strict=True)}
    return tags | {f"{c}TRC": curve(gamma) for c in "rgb"}


P3_OF_GAMMA_2 = profile("RGB", "XYZ", "A wide display", **colorants(DISPLAY_P3, 2.0))


def srgb_levels(light):
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(0) ** (1 / 2.4) - 0.055)
    return (coded.clip(0, 1) * 255).round().astype(int)


def levels_of_p3(levels):
    return srgb_levels((levels / 255.0) ** 2 @ P3_TO_XYZ.T @ XYZ_TO_SRGB.T)
