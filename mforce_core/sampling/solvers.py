"""One step of a rollout, from the noise levels of both streams before it to those after it."""

from torch import Tensor

from ..release import MIN_DEPTH_TIME
from .guidance import Prediction
from .schedule import Levels


def depth_velocity(depth: Tensor, depth_x0: Tensor, t_depth: float) -> Tensor:
    """Velocity eps - x_0 from an x-prediction at noise level t_depth, which divides with a floor."""
    return (depth - depth_x0) / max(t_depth, MIN_DEPTH_TIME)


def euler_step(rgb: Tensor, depth: Tensor, predicted: Prediction, now: Levels, after: Levels) -> tuple[Tensor, Tensor]:
    """``x + (t_next - t) * velocity`` for each stream on its own noise levels.

    Args:
        rgb, depth: the state at ``now``, (B, N, Cin) and (B, N, Cd) float32.
        predicted: at ``now``.

    Returns:
        The state at ``after``. A stream whose noise level stays is frozen and comes back as it is.
    """
    if after.rgb != now.rgb:
        rgb = rgb + (after.rgb - now.rgb) * predicted.rgb_velocity
    if after.depth != now.depth:
        depth = depth + (after.depth - now.depth) * depth_velocity(depth, predicted.depth_x0, now.depth)
    return rgb, depth
