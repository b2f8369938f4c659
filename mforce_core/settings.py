"""Everything that decides a result: what is written to ``metadata.json`` and read back to make it again.

Sentences name a setting in backquotes; the command line shows it as its option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .release import CFG, FOV_DEGREES, MAX_STEPS, MODES, PATCH_SIZE, SAMPLERS, STEPS, Mode

#: Forms of the depth that are written on demand: compressed NumPy with mask and camera, portable float map, TIFF.
DEPTH_FORMS = ("npz", "pfm", "tiff", "tiff16")

#: Steps of image to depth on the command line: more change little but their time (docs/concepts/paths.md).
DEPTH_STEPS = 4
#: Noise at the start of what starts from content, as in the image-to-image pipeline for FLUX of diffusers.
STRENGTH = 0.6

#: A fast rollout: second-order multistep over steps that are denser at both ends of the path than the release's.
FAST_STEPS, FAST_SAMPLER, FAST_SIGMA = 12, "dpmpp_2m", 1.7

#: Tiles of depth at full size: how much of one its neighbor covers, and the noise level that it starts at. A picture
#: that is made larger has details yet to be made, and starts at more noise.
TILE_OVERLAP, TILE_STRENGTH, PAIR_STRENGTH = 0.5, 0.15, 0.4

#: Settings that name a file which is read.
FILES = ("input", "mask", "start_image", "start_depth")

#: Settings that say how fast a result comes, and not what it is.
OF_THE_MACHINE = ("device", "threads", "compile", "cuda_graph")

#: Filling what comes into view (`explore`): steps in which both streams are made, and the noise level that they start
#: at. Below it the background's blur stays, above it the colors drift.
FILL_STEPS, FILL_NOISE = 10, 0.6

#: Name of the model that comes with the package, and those of all that do.
BUILT_IN = "nano"
ALL_BUILT_IN = (BUILT_IN, "nano-fast")


@dataclass(frozen=True)
class Settings:
    """Settings of one generation.

    Attributes:
        size: (width, height) of the model's canvas in pixels; None: what the model was trained for.
        original_size: the result of i2d has the input's own size instead.
        full_size: depth at the input's own size is refined by the model tile by tile, see `full_size.refine`.
        enlarge: how many times larger than the canvas, on a side, picture and depth of joint mode become; they are
            refined together tile by tile.
        tile: side of the tiles in pixels; None: the model's canvas.
        overlap: share of a tile that the next one covers, too.
        tile_strength: noise level that tiles start at, from what was enlarged; None: the mode's.
        tilt: log2 of alpha, in joint mode.
        ensemble: of so many depth maps of a picture the median is taken, and their spread is kept, in mode i2d.
        align_shift: align the maps of an ensemble by an offset, too, not in scale alone.
        path: another path of the noise levels, as `PathSpec.parse` reads it, instead of the tilt.
        follow: how strictly the given picture or depth map is followed, as log2 of alpha: it is mixed with noise as it
            would be on that path, from -14 (strict) over -5 (loose) to 3 (hardly); None keeps it clean throughout.
        image_strength, depth_strength: noise at the start of a stream that starts from content, above 0 and up to 1,
            where nothing is left of the content; None: from noise.
        start_image, start_depth: files with that content.
        sampler: solver of the steps; "euler" is the release's.
        cfg_interval: noise levels, lowest and highest, in which there is guidance; None: everywhere.
        cfg_rescale, cfg_parallel: what tempers guidance, see `sampling.guidance.Guidance`.
        block_cache: threshold of `model.block_cache.BlockCache`; 0: every block runs in every step.
        fov: horizontal field of view in degrees.
        edge_threshold: relative jump of depth that leaves a point out of the cloud; None: by the size.
        also: more forms of the depth to write, of `DEPTH_FORMS`.
        device, dtype: "auto" until the model is known.
        threads: of the CPU; None until the model is known.
    """

    mode: Mode
    prompt: str
    seed: int = 0
    steps: int = STEPS
    cfg: float = CFG["joint"]
    tilt: float | None = None
    path: str | None = None
    follow: float | None = None
    image_strength: float | None = None
    depth_strength: float | None = None
    start_image: str | None = None
    start_depth: str | None = None
    sampler: str = "euler"
    cfg_interval: tuple[float, float] | None = None
    cfg_rescale: float = 0.0
    cfg_parallel: float = 1.0
    block_cache: float = 0.0
    ensemble: int = 1
    align_shift: bool = False
    refine_depth: bool = False
    guidance: float | None = None
    size: tuple[int, int] | None = None
    fit: str = "pad"
    original_size: bool = False
    full_size: bool = False
    enlarge: float = 1.0
    tile: int | None = None
    overlap: float = TILE_OVERLAP
    tile_strength: float | None = None
    input: str | None = None
    mask: str | None = None
    disparity: bool = False
    far_to_near: float | None = None
    fov: float = FOV_DEGREES
    edge_threshold: float | None = None
    remove_outliers: bool = False
    also: tuple[str, ...] = ()
    model: str = BUILT_IN
    text_encoder: str | None = None
    vae: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))
        if self.cfg_interval is not None:
            object.__setattr__(self, "cfg_interval", tuple(self.cfg_interval))
        object.__setattr__(self, "also", tuple(self.also))
        self._check()

    def _check(self) -> None:
        """Refuse what cannot work before any model is loaded."""
        self._check_task()
        self._check_noise_levels()
        self._check_starts()
        self._check_guidance()
        self._check_geometry()
        self._check_sizes()

    def _check_task(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"The mode must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.mode == "joint" and self.input is not None:
            raise ValueError(f"The mode {self.mode} does not go with the input file {self.input}.")
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}.")
        if self.steps > MAX_STEPS:
            raise ValueError(f"`steps` must be at most {MAX_STEPS:,}, got {self.steps:,}.")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"`seed` must be a number from 0 to 2^64 - 1, got {self.seed}.")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"`sampler` must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}.")
        if not 0 <= self.block_cache < 1:
            raise ValueError(f"`block_cache` must be from 0 to below 1, got {self.block_cache}.")
        if self.block_cache and (self.cuda_graph or self.compile):
            # A graph repeats what it recorded; compiled code would be compiled again for every count of the cache.
            raise ValueError("`block_cache` excludes `cuda_graph` and `compile`: leave one of them out.")
        if not 1 <= self.ensemble <= 100:
            raise ValueError(f"`ensemble` must be a number from 1 to 100, got {self.ensemble}.")
        if self.ensemble > 1 and self.mode != "i2d":
            raise ValueError(f"`ensemble` is for depth from a picture, mode i2d, got {self.mode}.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"`dtype` must be float32, bfloat16 or auto, got {self.dtype!r}.")

    def _check_noise_levels(self) -> None:
        if self.tilt is not None and not abs(self.tilt) <= 30:
            raise ValueError(f"`tilt` must lie between -30 and 30, got {self.tilt}.")
        if self.follow is not None and not abs(self.follow) <= 30:
            raise ValueError(f"`follow` must lie between -30 and 30, got {self.follow}.")
        if self.follow is not None and (self.mode == "joint" or self.path is not None):
            other = "mode joint" if self.mode == "joint" else "a `path` of its own"
            raise ValueError(f"`follow` is for a given picture or depth map, and does not go with {other}.")
        if self.path is not None and self.tilt is not None:
            raise ValueError("`path` and `tilt` both say how the noise levels fall: give one of them.")

    def _check_starts(self) -> None:
        for name, given in (("image", "i2d"), ("depth", "d2i")):
            strength, file = getattr(self, f"{name}_strength"), getattr(self, f"start_{name}")
            if file is not None and strength is None:
                raise ValueError(f"`start_{name}` needs a strength.")
            if strength is not None and self.mode == given:
                raise ValueError(f"In mode {given} the {name} is given whole: `start_{name}` is for the other modes.")
            if strength is not None and not 0 < strength <= 1:
                raise ValueError(f"The strength of `start_{name}` must lie above 0 and at most at 1, got {strength}.")

    def _check_guidance(self) -> None:
        if not (math.isfinite(self.cfg) and self.cfg >= 0):
            raise ValueError(f"`cfg` must be a finite number of at least 0, got {self.cfg}.")
        if self.cfg_interval is not None and not 0 <= self.cfg_interval[0] <= self.cfg_interval[1] <= 1:
            raise ValueError(f"`cfg_interval` must be two noise levels, low and high, got {self.cfg_interval}.")
        for name in ("cfg_rescale", "cfg_parallel"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}.")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"`guidance` must be a finite number of at least 0, got {self.guidance}.")

    def _check_geometry(self) -> None:
        if self.far_to_near is not None and not 1 < self.far_to_near <= 1000:
            raise ValueError(f"`far_to_near` must be above 1 and at most 1000, got {self.far_to_near}.")
        if not 0 < self.fov < 180:
            raise ValueError(f"`fov` must be between 0 and 180 degrees, got {self.fov}.")
        if self.edge_threshold is not None and not 0 < self.edge_threshold < math.inf:
            raise ValueError(f"`edge_threshold` must be a finite number above 0, got {self.edge_threshold}.")
        unknown = sorted(set(self.also) - set(DEPTH_FORMS))
        if unknown:
            raise ValueError(f"`also` must be of {', '.join(DEPTH_FORMS)}, got {', '.join(unknown)}.")

    def _check_sizes(self) -> None:
        if self.fit not in ("pad", "crop"):
            raise ValueError(f"`fit` must be pad or crop, got {self.fit!r}.")
        if self.original_size and self.mode != "i2d":
            raise ValueError(f"`original_size` is for mode i2d, got {self.mode}.")
        if self.full_size and not self.original_size:
            raise ValueError(
                "`full_size` is for depth at a picture's own size: it goes with mode i2d and `original_size`."
            )
        if not 1 <= self.enlarge <= 64:
            raise ValueError(f"`enlarge` must be from 1 to 64 times, got {self.enlarge:g}.")
        if self.enlarge > 1 and self.mode != "joint":
            raise ValueError(f"`enlarge` is for mode joint, got {self.mode}.")
        if self.tile is not None and (self.tile < PATCH_SIZE or self.tile % PATCH_SIZE):
            raise ValueError(f"`tile` must be a multiple of {PATCH_SIZE}, got {self.tile}.")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"`overlap` must lie between 0 and 0.9, got {self.overlap}.")
        if self.tile_strength is not None and not 0 < self.tile_strength <= 1:
            raise ValueError(f"`tile_strength` must be above 0 and at most 1, got {self.tile_strength}.")
        for name, usual in (("tile", None), ("overlap", TILE_OVERLAP), ("tile_strength", None)):
            if getattr(self, name) != usual and not (self.full_size or self.enlarge > 1):
                raise ValueError(f"`{name}` is for `full_size` and `enlarge`: leave it out, or ask for one of them.")
        if self.size is not None:
            check_grid(*self.size)

    @property
    def canvas(self) -> tuple[int, int]:
        """``size`` of settings whose model is known."""
        assert self.size is not None
        return self.size

    def files(self) -> dict[str, str]:
        """The files that the run reads, by the name of their setting."""
        paths = {name: getattr(self, name) for name in FILES}
        return {name: path for name, path in paths.items() if path is not None}

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, for JSON."""
        values = asdict(self)
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | lists

    def decisive(self) -> dict[str, Any]:
        """`to_dict` without what may differ where a run goes on, such as on another machine."""
        return {name: value for name, value in self.to_dict().items() if name not in OF_THE_MACHINE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The settings in a ``metadata.json``.

        Raises:
            ValueError: a setting that this version does not know, or an impossible value.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            listed = ", ".join(name[:40] for name in unknown[:5])
            raise ValueError(f"The settings hold {listed}, which this version of mforce does not know.")
        kinds = get_type_hints(cls)
        for name, value in values.items():
            if not _is_of(value, kinds[name]):
                raise ValueError(f"The setting {name} is {str(value)[:40]!r}, which is of the wrong type.")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"The settings are incomplete: {error}.") from error
        except ValueError as error:
            raise ValueError(str(error) if len(str(error)) < 300 else f"{str(error)[:300]}...") from None


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of a JSON file has the type of a setting."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    if get_origin(kind) is None:
        return type(value) is kind
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, (list, tuple)):
            return False
        if kinds[-1] is Ellipsis:
            return all(_is_of(part, kinds[0]) for part in value)
        return len(value) == len(kinds) and all(map(_is_of, value, kinds))
    if get_origin(kind) is Literal:
        return isinstance(value, str)  # the settings say themselves which there are
    return any(_is_of(value, part) for part in get_args(kind))


def check_grid(width: int, height: int) -> None:
    """Refuse sizes off the token grid, naming the nearest that is on it."""
    if width % PATCH_SIZE or height % PATCH_SIZE or width < PATCH_SIZE or height < PATCH_SIZE:
        near = "x".join(str(max(PATCH_SIZE, round(side / PATCH_SIZE) * PATCH_SIZE)) for side in (width, height))
        raise ValueError(
            f"The size {width}x{height} is off the grid: width and height must be multiples of {PATCH_SIZE}. "
            f"Use `size` {near}."
        )
