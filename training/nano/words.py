"""Make the frozen word table: ``python -m mforce.training.nano.words --out FILE``."""

import argparse
from pathlib import Path

from ...mforce_core.encoders.words import WordTextEncoder
from ...scenes.vocabulary import VOCABULARY

#: Longest caption of the scenes, in words, and the width of a word's vector.
LENGTH, DIM = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    WordTextEncoder.random(VOCABULARY, DIM, LENGTH, seed=0).save(args.out)


if __name__ == "__main__":
    main()
