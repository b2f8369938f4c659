"""Typed training configuration: what a run can be told, section by section."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ..mforce_core.model.config import Architecture
from ..mforce_core.release import CFG, RELEASE_SIZE, SHIFT_MU, TEXT_TOKENS
from .section import AnyPath, Section, key


class ArchitectureConfig(Section):
    """Sizes of the transformer; the defaults are those of the release."""

    in_channels: int = Architecture.in_channels
    """Channels of an RGB latent."""
    depth_channels: int = Architecture.depth_channels
    """Pixels of a depth token, a square's area; 0 without a depth stream."""
    context_in_dim: int = Architecture.context_in_dim
    """Width of the text features."""
    hidden_size: int = Architecture.hidden_size
    """Width of the transformer."""
    num_heads: int = Architecture.num_heads
    """Attention heads."""
    depth_double: int = Architecture.depth_double
    """Double-stream blocks."""
    depth_single: int = Architecture.depth_single
    """Single-stream blocks."""
    depth_decoder_num_layers: int = Architecture.depth_decoder_num_layers
    """Blocks of the depth stream alone, after the others."""
    axes_dim: tuple[int, ...] = Architecture.axes_dim
    """Channels of a head that encode each of the four axes of a position; their sum is the head's size."""
    theta: float = Architecture.theta
    """Base of the rotary embedding's wavelengths."""
    mlp_ratio: float = Architecture.mlp_ratio
    """Width of the MLPs' hidden layer over that of the transformer."""
    use_guidance_embed: bool = Architecture.use_guidance_embed
    """The base is guidance-distilled."""
    cross_stream_timestep_mixing: bool = Architecture.cross_stream_timestep_mixing
    """Each stream also sees the other's noise level, through gates that start at zero."""
    num_kv_heads: int = key(Architecture.num_kv_heads, ge=0)
    """Heads of keys and values, which queries share in groups; 0 is as many as attention heads."""
    rgb_prediction: Literal["velocity", "clean"] = key("velocity", paper="velocity; clean in the scaling study (eq. 9)")
    """What the RGB output is; ``clean`` latents are trained by the velocity that they imply."""
    depth_lapped: bool = key(Architecture.depth_lapped, paper="false")
    """Depth patches overlap, which leaves no steps at their borders; for a depth stream trained from its start."""


class MixturePart(Section):
    """One data set of a mixture, ``[[data.mixture]]`` for each; the rows of a batch are shared among them by weight."""

    latents: Path | None = None
    """Folder that ``mforce data encode`` wrote, in the folder ``data.latents`` where that is given."""
    shards: tuple[str, ...] = ()
    """Folders, tar files or patterns instead, with ``source = "stream"``."""
    weight: float = key(gt=0)
    """Share of the rows, over the sum of all weights."""


class DataConfig(Section):
    """Where samples come from."""

    source: Literal["encoded", "stream"] = "encoded"
    """``encoded`` reads the folder ``latents``; ``stream`` reads ``shards`` of files and encodes them as they come."""
    latents: Path | None = None
    """Folder that ``mforce data encode`` wrote or, with a mixture, the one that its folders lie in."""
    mixture: tuple[MixturePart, ...] = ()
    """Several data sets; also the name of a mixture, ``paper``, or a TOML file with such a list."""
    shards: tuple[str, ...] = ()
    """Folders, tar files or patterns of a stream."""
    autoencoder: AnyPath | None = None
    """Autoencoder of a stream."""
    size: tuple[int, int] = (RELEASE_SIZE, RELEASE_SIZE)
    """Height and width of the pictures: a stream cuts them to it; otherwise only the plan uses it."""
    buckets: bool = key(False, paper="true (FLUX.2-klein-9B)")
    """A stream keeps the shapes of pictures: ``size``, a square, has the longer side of each, and a batch has pictures
    of one shape. Encoded samples have the shapes that ``mforce data encode --buckets`` gave them."""
    text_tokens: int = key(TEXT_TOKENS, gt=0)
    """Length of a prompt's features; only the plan uses it."""
    caption_dropout: float = key(0.1, ge=0, le=1)
    """Probability that a caption becomes the empty one, for classifier-free guidance."""
    on_device: bool = False
    """Keep all encoded samples in the memory of every device and draw noise there, for models whose steps take less
    time than the CPU needs to read and prepare a batch; its random numbers differ from those without it."""

    @model_validator(mode="after")
    def _complete(self) -> "DataConfig":
        streams = self.source == "stream"
        if streams and (not (self.shards or self.mixture) or self.autoencoder is None):
            raise ValueError("source = stream needs shards and an autoencoder")
        if not streams and self.latents is None and not self.mixture:
            raise ValueError(f"source = {self.source} needs latents, a folder")
        if streams and self.on_device:
            raise ValueError("on_device needs source = encoded")
        if self.buckets and not streams:
            raise ValueError("buckets needs source = stream: encoded samples keep the shapes that they have")
        if self.buckets and self.size[0] != self.size[1]:
            raise ValueError("buckets needs a square size, whose side is the longer one of every picture")
        if streams and self.shards and self.mixture:
            raise ValueError("shards and mixture exclude each other: give a mixture's shards in its parts")
        wanted, other = ("shards", "latents") if streams else ("latents", "shards")
        if any(not getattr(part, wanted) or getattr(part, other) for part in self.mixture):
            raise ValueError(f"source = {self.source} needs {wanted}, and no {other}, in every part of a mixture")
        names = [part.latents or part.shards for part in self.mixture]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"mixture names {twice} twice")
        return self

    def parts(self) -> dict[Path, float]:
        """Folders of encoded samples with their weights; none of a stream."""
        if self.source == "stream":
            return {}
        root = self.latents or Path()
        return {root / part.latents: part.weight for part in self.mixture if part.latents} or {root: 1.0}

    def streams(self) -> list[tuple[tuple[str, ...], float]]:
        """Shards of a stream with their weights."""
        return [(part.shards, part.weight) for part in self.mixture] or [(self.shards, 1.0)]


class OptimizerConfig(Section):
    """Optimizer, learning rate schedule and average of the weights."""

    name: Literal["adamw", "muon"] = "adamw"
    """``muon`` updates the blocks' matrices with Muon and the rest with AdamW."""
    learning_rate: float = key(gt=0)
    """At its peak."""
    weight_decay: float = key(0.01, ge=0)
    """Decoupled from the gradient."""
    warmup_steps: int = key(200, ge=0)
    """Steps of linear rise; shortened in proportion where warm-up and cool-down exceed the run."""
    cooldown_steps: int = key(2000, ge=0)
    """Steps of linear fall to zero at the end of the run."""
    gradient_clip: float = key(1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = key(0.999, ge=0, lt=1)
    """Of the exponential moving average, which is what a run exports."""


class RecipeConfig(Section):
    """Tasks, noise levels, losses and the start of the depth stream."""

    time_mu: float = key(SHIFT_MU, paper="1.1")
    """Shift of the noise levels: a logit-normal draw is ``sigmoid(mu + n)``."""
    depth_times: Literal["logit_normal", "plateau"] = key("logit_normal", paper="plateau")
    """Distribution of depth's noise levels; ``plateau`` is constant from the mode of the logit-normal density to 1."""
    probability_i2d: float = key(0.2, ge=0, le=1, paper="0.2")
    """Share of samples with clean RGB: depth from image."""
    probability_d2i: float = key(0.2, ge=0, le=1, paper="0.2")
    """Share of samples with clean depth: image from depth."""
    depth_loss_weight: float = key(1.0, ge=0)
    """Factor of the depth loss beside the RGB loss."""
    depth_weighting: Literal["uniform", "relative", "velocity"] = key("relative", paper="velocity (eq. 7)")
    """Division of depth's error before squaring: nothing; distance to the nearer end of (0, 2), which makes it
    relative; or noise level, floored at 0.05, which makes it the error of the implied velocity."""
    gradient_weight: float = key(0.0, ge=0)
    """Factor of the gradient-matching loss on depth, which also sees the borders between tokens; 0 leaves it out."""
    sparse_probability: float = key(0.5, ge=0, le=1)
    """Share of samples whose depth loses pixels, as sparse sensors do."""
    depth_share: float = key(1.0, gt=0, le=1)
    """Share of pixels that every depth map keeps."""
    distillation_high: float = key(1.0, ge=0, paper="not disclosed; above distillation_low")
    """Weight of self-distillation where depth is all noise (eq. 8)."""
    distillation_low: float = key(0.1, ge=0, paper="not disclosed")
    """Weight of self-distillation where depth is clean (eq. 8)."""
    depth_start: Literal["gated", "image", "fresh", "paper"] = key("gated", paper="paper")
    """Depth stream at the start. ``paper`` copies the image stream, while tokenizer, time embedder and depth decoder
    are new; ``image`` also copies time embedder and decoder blocks; ``gated`` does so behind closed gates; ``fresh``
    copies nothing."""
    terms: tuple[str, ...] = ()
    """Further losses, ``module:function`` or ``file.py:function``; docs/training.md has an example."""

    @property
    def distils(self) -> bool:
        return self.distillation_high > 0 or self.distillation_low > 0


class LoraConfig(Section):
    """Low-rank updates of the image and text half, in stage distill also of the depth stream, for
    ``trainable = "lora"``."""

    rank: int = key(16, gt=0)
    """Of each update."""
    alpha: float = 16.0
    """An update is multiplied by ``alpha / rank``."""
    targets: tuple[str, ...] = (
        *("img_attn.qkv", "img_attn.proj", "txt_attn.qkv", "txt_attn.proj"),
        *("img_mlp.0", "img_mlp.2", "txt_mlp.0", "txt_mlp.2", "linear1", "linear2"),
    )
    """Ends of the names of Linear layers."""
    merge: bool = True
    """Add the updates to the exported model; without it the model keeps the base's weights and needs the LoRA file."""


class DistillationConfig(Section):
    """From a model of many steps with guidance to one of few steps without, for ``stage = "distill"``."""

    steps: int = key(4, ge=1, le=64)
    """Steps that the student is to take; it can be run in others, and is worse in fewer."""
    path: str = "points 1,1 0,1 0,0"
    """Joint path that the exported model takes unless another is asked for, as ``--path`` reads it; this one makes the
    picture first and its depth in the last step."""
    sampler: str = "euler"
    """Solver that the exported model takes, as ``--sampler`` names it."""
    i2d_steps: int | None = key(None, ge=1, le=64)
    """Steps that the exported model takes from image to depth; ``steps`` where it is not set."""
    d2i_steps: int | None = key(None, ge=1, le=64)
    """Steps that the exported model takes from depth to image; ``steps`` where it is not set."""
    path_share: float = key(0.5, gt=0, le=1)
    """Share of joint samples on that path; the others are on ``other_paths``."""
    other_paths: tuple[str, ...] = ("tilt log2_alpha=5", "tilt log2_alpha=0", "tilt log2_alpha=-5")
    """Further joint paths that the student learns."""
    between: float = key(0.25, ge=0, le=1)
    """Share of samples that start inside a step, from where more steps than the student's own also go."""
    teacher_steps: int = key(4, ge=1, le=16)
    """Euler steps of the teacher in what it goes of a step of the student."""
    teacher_share: float = key(1.0, gt=0, le=1)
    """What the teacher goes of a step of the student; below 1 the student itself, without gradient, goes the rest,
    which makes its predictions consistent along the path."""
    trajectory_weight: float = key(1.0, ge=0)
    """Factor of the losses against what the teacher does of a step; 0 leaves them and the teacher's steps out."""
    matching_weight: float = key(0.0, ge=0)
    """Factor of distribution matching: where the student's steps end is to be distributed as the guided teacher has it,
    as a critic tells, a second model that is trained beside the student; 0 leaves it out."""
    critic_rate: float = key(5.0, gt=0)
    """The critic's learning rate over the student's, whose distribution it has to follow."""
    cfg: float = key(CFG["joint"], ge=0)
    """The teacher's guidance in joint and depth to image."""
    i2d_cfg: float = key(CFG["i2d"], ge=0)
    """The teacher's guidance in image to depth."""
    scales: tuple[float, float] = (1.0, 6.0)
    """For a base that embeds a guidance scale: every sample draws one evenly between these, which is the student's
    input and, in place of ``cfg``, the teacher's guidance."""
    teacher_scale: Literal["cfg", "input"] = "cfg"
    """How such a teacher is guided at that scale: ``cfg`` by classifier-free guidance, with 1 as its own input;
    ``input`` by its own input alone, at half the cost, where its guidance was distilled in."""

    data_weight: float = key(0.0, ge=0)
    """Factor, beside the teacher's, of the depth loss on measured depth, in steps that end at clean depth under a clean
    picture: there the mean over data is what a single step is to predict."""
    on_policy: float = key(0.0, ge=0, le=1)
    """Share of the samples at the beginning of a step that start where the student itself arrives by its own steps from
    noise; the others, and those inside a step, start from data that is mixed with noise."""

    @model_validator(mode="after")
    def _in_order(self) -> "DistillationConfig":
        if not 0 <= self.scales[0] <= self.scales[1]:
            raise ValueError("scales are two numbers from 0 on, the lower one first")
        if not self.trajectory_weight and not self.matching_weight:
            raise ValueError("trajectory_weight and matching_weight are both 0, and nothing is learned of the teacher")
        return self

    def guided(self, *, embeds: bool) -> bool:
        """Whether the teacher needs classifier-free guidance; ``embeds`` where the base embeds a scale."""
        if embeds and self.teacher_scale == "input":
            return False
        return max(self.scales[1] if embeds else self.cfg, self.i2d_cfg) > 1


class ScaleConfig(Section):
    """How a step fits the hardware; none of it changes what is computed."""

    micro_batch_size: int | None = key(None, gt=0)
    """Samples of one forward pass of one process; its whole share of the batch where it is not set."""
    reduce_gradients: Literal["step", "micro_batch"] = "step"
    """When processes add up their gradients: once per step, holding whole gradients until then, or after every
    micro-batch, holding only shards."""
    checkpoint_activations: bool = False
    """Compute the inside of every block again in the backward pass instead of keeping it."""
    teacher: Literal["device", "host"] = "device"
    """Where the frozen teacher's matrices lie; ``host`` leaves them in the base's mapped file and moves each to the
    device when it is used."""


class HeldOutConfig(Section):
    """A regular look at samples that training never sees."""

    latents: Path
    """Folder of encoded samples."""
    autoencoder: AnyPath | None = None
    """Shows pictures in color; without it only depth is shown."""
    every: int = key(500, gt=0)
    """Steps between looks; there is also one at the end."""
    samples: int = key(8, gt=0)
    """How many are measured."""
    sampling_steps: int = key(20, gt=0)
    """Euler steps of a rollout; in stage distill they are the student's."""


class TrainConfig(Section):
    """One training stage."""

    stage: Literal["t2i", "mf", "distill"]
    """``t2i`` trains text to image, from scratch or from ``base``; ``mf`` starts from ``base`` and adds depth;
    ``distill`` makes a model of few steps from ``base``, which has depth and stays its teacher."""
    out: Path
    """Folder of the run: checkpoints, log, report, model."""
    base: AnyPath | None = None
    """Model that the run starts from: a folder of a t2i stage, a FLUX.2-klein file or a Modality Forcing model."""
    text_encoder: AnyPath | None = None
    """File or folder; data with encoded text does not need it."""
    trainable: Literal["all", "paper", "depth", "lora"] = key("all", paper="paper (FLUX.2-klein-9B)")
    """``paper``: all but the image weights of the double blocks; ``depth``: the depth stream alone; ``lora``: the depth
    stream and low-rank updates of the rest, in stage distill low-rank updates of both."""
    steps: int = key(gt=0)
    """Length of the run."""
    batch_size: int = key(gt=0)
    """Samples per step, of all processes together."""
    seed: int = key(0, ge=0)
    """Of every random draw."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation; weights, gradients, moments and the average are float32."""
    compile: bool = True
    """Use torch.compile."""
    log_every: int = key(20, gt=0)
    """Steps between log entries, which are means over those steps."""
    save_every: int = key(1000, gt=0)
    """Steps between checkpoints."""
    keep_last: int = key(2, gt=0)
    """Checkpoints that stay."""
    tensorboard: bool = False
    """Also write TensorBoard's files."""
    copy_parts: bool = False
    """Copy the autoencoder and a word-level text encoder into the exported folder, which names them otherwise."""
    architecture: ArchitectureConfig
    data: DataConfig
    optimizer: OptimizerConfig
    recipe: RecipeConfig = RecipeConfig()
    lora: LoraConfig = LoraConfig()
    distillation: DistillationConfig = DistillationConfig()
    scale: ScaleConfig = ScaleConfig()
    heldout: HeldOutConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        sizes = self.sizes()
        if self.has_depth and not sizes.has_depth:
            raise ValueError(f"stage {self.stage} needs an architecture with depth_channels")
        if self.stage == "mf" and self.base is None and (self.distils or self.trainable != "all"):
            raise ValueError("stage mf needs a base, unless trainable = all and both distillation weights are 0")
        if self.stage == "distill" and self.base is None:
            raise ValueError("stage distill needs a base, the model that it distills")
        if self.stage == "distill" and self.recipe.terms:
            raise ValueError("stage distill has no recipe.terms: they look at predictions of clean data")
        if self.has_critic and self.trainable == "lora":
            raise ValueError(
                "distillation.matching_weight needs trainable = all: there is no critic of low-rank updates"
            )
        if self.stage != "distill" and sizes.use_guidance_embed:
            raise ValueError(f"stage {self.stage} is for models that embed no guidance scale")
        if self.stage == "t2i" and sizes.has_depth:
            raise ValueError("stage t2i has no depth stream: set depth_channels = 0")
        if self.recipe.probability_i2d + self.recipe.probability_d2i > 1:
            raise ValueError("probability_i2d + probability_d2i exceeds 1")
        if self.trainable in ("depth", "paper") and self.stage == "t2i":
            raise ValueError(f"trainable = {self.trainable} needs stage mf: a t2i stage has no depth stream")
        if self.trainable == "lora" and self.base is None:
            raise ValueError("trainable = lora needs a base, whose weights it leaves as they are")
        if self.text_encoder is None and self.data.source == "stream":
            raise ValueError("data.source = stream needs a text_encoder")
        return self

    def sizes(self) -> Architecture:
        return Architecture(**self.architecture.model_dump())

    @property
    def has_depth(self) -> bool:
        """Whether the stage trains on pictures with depth."""
        return self.stage != "t2i"

    @property
    def has_critic(self) -> bool:
        """Whether a critic of the student's distribution is trained beside it."""
        return self.stage == "distill" and self.distillation.matching_weight > 0

    @property
    def distils(self) -> bool:
        """Whether a frozen model is looked up to: a text-to-image model in stage mf, the base in stage distill."""
        return self.stage == "distill" or (self.stage == "mf" and self.recipe.distils)
