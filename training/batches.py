"""What the training loop asks of its data."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class EncodedBatch(NamedTuple):
    """Rows of a batch as the frozen encoders left them.

    ``rgb`` (B, C, h, w) float32 latents; ``depth`` (B, H, W) float32 in any unit, 0 where not measured, or None where
    the data has no depth; ``text`` (B, T, D) float32 features of the captions.
    """

    rgb: Tensor
    depth: Tensor | None
    text: Tensor


class Source(Protocol):
    """Batches by step.

    ``batch`` is a pure function of (the source's own seed, step, row): however many ranks share the rows of a global
    batch, they see the same batches, and a resumed run needs no state. All samples of a batch have one shape.
    ``len`` is the number of samples.

    Attributes:
        latent_shape: (C, h, w) of one sample's ``rgb``, the most frequent where there are several.
        null_text: (T, D) features of the empty caption, for caption dropout and classifier-free guidance.
    """

    latent_shape: tuple[int, int, int]
    null_text: Tensor

    def __len__(self) -> int: ...

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        """``rows`` (start and stop given) of the global batch of ``step``."""
        ...


@runtime_checkable
class SequentialSource(Protocol):
    """A source that can only be read in order says where it is, so that a resumed run need not read it all again.

    Attributes:
        broken: why samples could not be used, by shard and key, in the order in which they were found.
    """

    broken: dict[tuple[str, str], str]

    def state_dict(self) -> dict[str, list[int]]:
        """The place after the last batch."""
        ...

    def load_state_dict(self, state: dict[str, list[int]]) -> None: ...
