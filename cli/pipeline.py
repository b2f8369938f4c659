"""Text encoder, autoencoder and transformer, loaded one after the other and run on one picture at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..mforce_core import decode_depth, encode_depth, load_autoencoder, load_model, load_text_encoder, sample
from ..mforce_core.depth.codec import fill_missing
from ..mforce_core.encoders.autoencoder import DECODER_FILE, ENCODER_FILE, ONE_FILE_NAMES
from ..mforce_core.encoders.qwen import QwenTextEncoder, load_qwen_text_encoder
from ..mforce_core.encoders.words import WordTextEncoder
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.release import CFG, NANO_SIZE, PATCH_SIZE, RELEASE_SIZE
from ..mforce_core.sampling.rollout import draw_noise
from ..mforce_core.scene3d.point_cloud import scaled_edge_threshold
from ..mforce_core.weights.checkpoint import check_tensors, read_header
from .settings import BUILT_IN, Settings

#: Word-level text encoder in the folder of a small model.
WORDS_FILE = "text_encoder.safetensors"

#: Models up to this size run in float32 on a CPU; it is as fast there and exact.
_SMALL_PARAMETERS = 10**9

#: progress(step, steps) after every denoising step.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parts:
    """Where the three networks of a model are."""

    model: Path
    text_encoder: Path
    vae: Path

    def files(self) -> dict[str, list[Path]]:
        """The files of each part that decide its output."""
        autoencoders = (ENCODER_FILE, DECODER_FILE, *ONE_FILE_NAMES)
        return {
            "model": sorted({*read_header(self.model).files.values(), *self.model.glob("config.json")}),
            "text_encoder": _weights_and_settings(self.text_encoder),
            "vae": [f for f in _weights_and_settings(self.vae) if self.vae.is_file() or f.name in autoencoders],
        }


@dataclass(frozen=True)
class Result:
    """rgb (H, W, 3) uint8 and relative depth (H, W) float32 with NaN where there is none."""

    rgb: np.ndarray
    depth: np.ndarray


def _weights_and_settings(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in (".safetensors", ".json") and file.is_file())


def find_parts(settings: Settings) -> Parts:
    """Locate the model's files.

    Raises:
        ValueError: a folder or file is missing; the sentence says which option names it.
    """
    model = Path(__file__).parent.parent / "models" / BUILT_IN
    if settings.model != BUILT_IN:
        model = Path(settings.model)
    if not model.exists():
        raise ValueError(f"The model {model} does not exist: give a release folder or .safetensors file with --model.")
    text_encoder = model / WORDS_FILE if settings.text_encoder is None else Path(settings.text_encoder)
    if settings.text_encoder is None and not text_encoder.exists():
        raise ValueError(
            f"{model} has no text encoder of its own: give a folder with Qwen3 (8B for the release, 4B for one "
            "trained from klein-4B) with --text-encoder."
        )
    beside = model if model.is_dir() else model.parent
    vae = beside if settings.vae is None else Path(settings.vae)
    if settings.vae is None and not any((vae / name).exists() for name in (DECODER_FILE, *ONE_FILE_NAMES)):
        raise ValueError(f"{model} has no autoencoder beside it: give the FLUX.2 autoencoder with --vae.")
    for option, path in (("--text-encoder", text_encoder), ("--vae", vae)):
        if not path.exists():
            raise ValueError(f"{path}, given with {option}, does not exist.")
    return Parts(model, text_encoder, vae)


def resolve(settings: Settings, parts: Parts) -> Settings:
    """Fill in what was left to the model and the machine: size, device, dtype and threads.

    Raises:
        ValueError: the checkpoint is damaged or foreign, or the device is not there.
    """
    header = read_header(parts.model)
    problems = check_tensors(header.shapes, header.architecture)
    if problems:
        raise ValueError(f"{parts.model} does not hold the model it should: {'; '.join(problems)}.")
    if not header.architecture.has_depth:
        raise ValueError(f"{parts.model} is a text-to-image base without a depth stream: give a trained model.")
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    dtype = settings.dtype
    if dtype == "auto":
        parameters = sum(int(np.prod(shape)) for shape in header.shapes.values())
        small = device == "cpu" and parameters <= _SMALL_PARAMETERS
        stored_exactly = set(header.dtypes.values()) == {"F32"}
        dtype = "float32" if small or stored_exactly else "bfloat16"
    size = settings.size or _trained_size(parts)
    return replace(
        settings,
        device=device,
        dtype=dtype,
        size=size,
        edge_threshold=settings.edge_threshold or scaled_edge_threshold(max(size)),
        threads=settings.threads or torch.get_num_threads(),
    )


def check_device(device: str) -> None:
    """Raises ValueError where PyTorch cannot use a device of this name."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"The device {device!r} cannot be used ({reason}): use --device cpu.") from None


def _check_compiler(device: torch.device) -> None:
    """Compile something small: what is missing shows here and not in the middle of a picture."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # compilers and drivers each have their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"torch.compile does not work on this machine ({reason}): leave --compile out.") from None


def _trained_size(parts: Parts) -> tuple[int, int]:
    """Picture size the model was trained for: ``image_size`` of its config.json, or that of its kind."""
    config = parts.model / "config.json"
    if config.is_file():
        side = json.loads(config.read_text(encoding="utf-8")).get("image_size")
        if side is not None:
            return (side, side) if isinstance(side, int) else tuple(side)
    side = NANO_SIZE if parts.text_encoder.name == WORDS_FILE else RELEASE_SIZE
    return side, side


class Pipeline:
    """A loaded model with the encodings of the prompts it will be asked for.

    Args:
        settings: resolved; its device, dtype and threads are used.
        prompts: every prompt that `generate` will get. They are encoded first and the text encoder is let go
        before
            the transformer is loaded, so that the two never share the memory.
        say: called with sentences for the person.
    """

    def __init__(self, settings: Settings, parts: Parts, prompts: Iterable[str], say: Callable[[str], None]) -> None:
        torch.backends.cudnn.deterministic = True
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.device = torch.device(settings.device)
        context = read_header(parts.model).architecture.context_in_dim
        self._texts = _encode_prompts({*prompts, ""}, parts.text_encoder, context, self.device, say)
        self.autoencoder = load_autoencoder(parts.vae, device=self.device, dtype=torch.float32)
        self.model = load_model(parts.model, device=self.device, dtype=getattr(torch, settings.dtype))
        if settings.compile:
            _check_compiler(self.device)
            say("The first step compiles the model, which takes a while.")
            self.model.compile(dynamic=False)
        if {self.autoencoder.spatial_factor, self.model.config.depth_patch_size} != {PATCH_SIZE}:
            raise ValueError(
                f"mforce works with {PATCH_SIZE}-pixel tokens; {parts.model} has depth patches of "
                f"{self.model.config.depth_patch_size} pixels and {parts.vae} cells of "
                f"{self.autoencoder.spatial_factor}."
            )
        channels = self.autoencoder.latent_channels
        if channels != self.model.config.in_channels:
            raise ValueError(
                f"The autoencoder {parts.vae} has {channels} latent channels and the model needs "
                f"{self.model.config.in_channels}: give the one that belongs to the model with --vae."
            )

    @torch.no_grad()
    def generate(
        self,
        settings: Settings,
        progress: Progress,
        *,
        rgb: np.ndarray | None = None,
        depth: np.ndarray | None = None,
    ) -> Result:
        """Sample one picture.

        Args:
            rgb: (H, W, 3) uint8, the given picture of mode i2d.
            depth: (H, W) float32 with NaN where missing, the given depth of mode d2i.
        """
        config = self.model.config
        if config.use_guidance_embed and settings.guidance is None:
            raise ValueError("This model embeds a guidance scale: give one with --guidance, for example 4.")
        width, height = settings.canvas
        grid = height // PATCH_SIZE, width // PATCH_SIZE
        rgb_tokens = None if rgb is None else self._rgb_tokens(rgb)
        depth_tokens = None if depth is None else self._depth_tokens(depth, settings.seed)
        passes = 2 if settings.refine_depth else 1

        rgb_tokens, depth_tokens = sample(
            self.model,
            self._texts[settings.prompt],
            grid,
            mode=settings.mode,
            steps=settings.steps,
            cfg=settings.cfg,
            log2_alpha=settings.tilt if settings.mode == "joint" else None,
            null_text=self._texts[""],
            rgb=rgb_tokens,
            depth=depth_tokens,
            seed=settings.seed,
            guidance=settings.guidance,
            callback=lambda step, steps, *_: progress(step, passes * steps),
            cuda_graph=settings.cuda_graph,
        )
        if settings.refine_depth:
            _, depth_tokens = sample(
                self.model,
                self._texts[""],
                grid,
                mode="i2d",
                steps=settings.steps,
                cfg=CFG["i2d"],
                rgb=rgb_tokens,
                seed=settings.seed,
                guidance=settings.guidance,
                callback=lambda step, steps, *_: progress(steps + step, passes * steps),
                cuda_graph=settings.cuda_graph,
            )
        return Result(
            self._picture(rgb_tokens, grid) if rgb is None else rgb,
            _depth_map(depth_tokens, grid) if depth is None else depth,
        )

    def _rgb_tokens(self, rgb: np.ndarray) -> Tensor:
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].to(self.device, torch.float32)
        return latents_to_tokens(self.autoencoder.encode(image / 127.5 - 1)).float()

    def _depth_tokens(self, depth: np.ndarray, seed: int) -> Tensor:
        """Tokens (1, N, p * p) of a given depth map, noise in the pixels without a measurement."""
        config = self.model.config
        patches = encode_depth(torch.from_numpy(depth)[None], patch_size=config.depth_patch_size)
        tokens = patches_to_tokens(patches)
        _, noise = draw_noise((1, tokens.shape[1], config.in_channels), tuple(tokens.shape), seed)
        return fill_missing(tokens, noise)

    def _picture(self, tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
        latent = tokens_to_latents(tokens, grid).contiguous()
        image = self.autoencoder.decode(latent)[0].float()
        if not torch.isfinite(image).all():
            raise ValueError("The picture came out as NaN: use --dtype float32 or bfloat16, and a lower --cfg.")
        return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _depth_map(tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
    depth = decode_depth(tokens_to_patches(tokens, grid))[0].cpu().numpy()
    if not np.isfinite(depth).any():
        raise ValueError("The depth came out with no valid pixel: the model is untrained or does not fit --size.")
    return depth


def _encode_prompts(
    prompts: set[str], path: Path, context: int, device: torch.device, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Text features (1, T, context) by prompt; the encoder is gone when this returns."""
    ordered = sorted(prompts)
    encoder: QwenTextEncoder | WordTextEncoder
    if path.is_dir() and not (path / WORDS_FILE).exists():
        encoder = load_qwen_text_encoder(path, device=device)
    else:
        encoder = load_text_encoder(path)
        unknown = list(dict.fromkeys(word for prompt in ordered for word in encoder.unknown_words(prompt)))
        if unknown:
            known = " ".join(encoder.vocabulary)
            say(f"The small model does not know: {', '.join(unknown)}. It knows: {known}.")
    features = torch.cat([encoder.encode([prompt]) for prompt in ordered])
    if features.shape[-1] != context:
        raise ValueError(
            f"The text encoder {path} gives {features.shape[-1]} features and the model needs {context}: "
            "Qwen3-8B is for klein-9B models such as the release, Qwen3-4B for klein-4B."
        )
    return {prompt: features[i : i + 1] for i, prompt in enumerate(ordered)}
