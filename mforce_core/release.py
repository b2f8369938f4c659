"""The constants and defaults of the published release, each written once.

Nothing is imported but the standard library, so that a command line or a menu can show a default without PyTorch.
"""

from collections.abc import Mapping
from typing import Literal, get_args

#: "joint": text -> RGB + depth; "i2d": RGB -> depth; "d2i": depth -> RGB.
Mode = Literal["joint", "i2d", "d2i"]
MODES: tuple[Mode, ...] = get_args(Mode)

#: Pixels along the side of a token, of the RGB latent as of the depth patches.
PATCH_SIZE = 16
#: Channels of an RGB token (the FLUX.2 autoencoder's latent) and of a depth token (the pixels of its patch).
RGB_CHANNELS = 128
DEPTH_CHANNELS = PATCH_SIZE**2
#: Length of every text encoding of the full-size models.
TEXT_TOKENS = 512

#: Side in pixels of the pictures that the released model, and the built-in nano, were trained for.
RELEASE_SIZE = 512
NANO_SIZE = 128

STEPS = 50
#: More steps, restarts of a path included, are a mistake, or an attack on the memory.
MAX_STEPS = 10_000
#: Solvers of the steps; the release has the first alone.
SAMPLERS = ("euler", "heun", "dpmpp_2m", "euler_ancestral")
#: Scale of classifier-free guidance.
CFG: Mapping[Mode, float] = {"joint": 4.0, "i2d": 1.0, "d2i": 4.0}
#: Scale for bases that embed one ("distilled guidance").
GUIDANCE = 3.5
#: Tilt of joint sampling: RGB is nearly clean before depth resolves.
LOG2_ALPHA = 5.0
#: Parameters of the timestep shift, the same for both streams.
SHIFT_MU, SHIFT_SIGMA = 1.1, 1.0
#: Floor of t_depth where an x-prediction becomes a velocity: (x_t - x_0) / t loses all precision near t = 0.
MIN_DEPTH_TIME = 0.05

#: Point clouds: horizontal field of view, relative depth jump of an edge at RELEASE_SIZE, most points of a file.
FOV_DEGREES = 65.0
EDGE_THRESHOLD = 0.04
MAX_POINTS = 1_200_000
