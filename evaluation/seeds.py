"""Seeds of single pictures."""

import hashlib


def picture_seed(seed: int, name: str | int) -> int:
    """The seed of one picture of a run: the same whatever else the run holds and wherever it is made.

    Args:
        seed: of the run.
        name: of the picture, or its place in the run.

    Returns:
        A number below 2^56.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
