"""Every reader of outside data, with whole files to damage and the errors that it documents."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms
from safetensors.torch import save

from ..mforce_core.depth.files import read_depth, write_16_bit, write_exr, write_pfm
from ..mforce_core.encoders.autoencoder import Autoencoder, Sizes
from ..mforce_core.encoders.autoencoder_files import load_autoencoder
from ..mforce_core.encoders.words import WordTextEncoder, load_text_encoder
from ..mforce_core.model.config import Architecture, read_config
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.picture.reading import read_picture
from ..mforce_core.scene3d.point_cloud import PointCloud
from ..mforce_core.scene3d.point_cloud_files import read_ply, to_ply
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.video.clips import open_clip
from ..mforce_core.weights.checkpoint import load_model, save_model
from ..mforce_core.weights.header import check_tensors, read_header
from ..training.config_file import read_train_config
from ..training.data.check import Check
from ..training.data.shards import SceneShard, TarShard
from .fuzz_mutations import damage_bytes, damage_json_bytes, damage_safetensors, damage_values

Damage = Callable[[bytes, list[bytes], Random], bytes]


@dataclass(frozen=True)
class Subject:
    """``suffix`` of the file; ``seeds``: whole files; ``read``: takes the path; ``errors``: what it may raise."""

    suffix: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    damage: Damage = damage_bytes
    errors: tuple[type[Exception], ...] = (ValueError,)


_RNG = np.random.default_rng(0)
_DEPTH = _RNG.uniform(1, 9, (12, 16)).astype(np.float32)
_PICTURE = _RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
_GRAY = _PICTURE[..., 0]
_SIZES = Architecture(
    in_channels=4, depth_channels=4, context_in_dim=6, hidden_size=16, num_heads=2, depth_double=1, depth_single=1,
    depth_decoder_num_layers=1, axes_dim=(2, 2, 2, 2),
)  # fmt: skip


def subjects(folder: Path) -> dict[str, Subject]:
    """All subjects by name; ``folder`` is where their whole files are made."""
    model = _model_files(folder)
    return {
        **_optional(folder),
        "npy": Subject(".npy", [_npy(_DEPTH), _npy(_DEPTH.astype(np.float16))], read_depth),
        "npz": Subject(".npz", _npz(), read_depth),
        "pfm": Subject(".pfm", [_written(folder / "d.pfm", lambda path: write_pfm(path, _DEPTH))], read_depth),
        "exr": Subject(".exr", _exr(folder), read_depth),
        "depth png": Subject(".png", _depth_png(folder), lambda path: read_depth(path, disparity=True)),
        "depth tiff": Subject(".tif", [_image(a, "tiff") for a in (_DEPTH, _GRAY)], read_depth),
        "mask png": Subject(".png", [_image(_GRAY, "png")], _as_mask(folder)),
        "mask npy": Subject(".npy", [_npy(_DEPTH > 3), _npy(_GRAY)], _as_mask(folder)),
        **{
            f"picture {kind}": Subject(f".{kind}", [_image(_PICTURE, kind), _image(_GRAY, kind)], read_picture)
            for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga")
        },
        "picture exr": Subject(".exr", _exr_pictures(folder), read_picture),
        "color profile": Subject(".jpeg", _with_profile(), read_picture),
        "ply": Subject(".ply", _ply(), lambda path: read_ply(path.read_bytes())),
        "checkpoint": Subject(".safetensors", [model["model.safetensors"]], _open_checkpoint, damage_safetensors),
        "checkpoint config": Subject(".json", [model["config.json"]], _open_with_config(model), damage_json_bytes),
        "config": Subject(".json", [model["config.json"], _VARIANT], read_config, damage_json_bytes),
        "index": Subject(".json", [_index()], _open_with_index(model), damage_json_bytes),
        "words": Subject(".safetensors", [_words(folder)], load_text_encoder, damage_safetensors),
        "autoencoder": Subject(".safetensors", _autoencoders(), load_autoencoder, damage_safetensors),
        "shard": Subject(".tar", [_tar()], lambda path: _look(TarShard(str(path)))),
        "captions": Subject(".json", [_FACTS], _facts_in_tar, damage_json_bytes),
        "scenes": Subject(".safetensors", [_scenes()], lambda path: _look(SceneShard(str(path))), damage_safetensors),
        "training config": Subject(".toml", _tomls(), lambda path: read_train_config(path, [])),
        "settings": Subject(".json", [_settings()], _read_settings, damage_values),
    }  # fmt: skip


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz() -> list[bytes]:
    found = []
    for save_arrays in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save_arrays(file, depth=_DEPTH, mask=_DEPTH > 3)
        found.append(file.getvalue())
    return found


def _optional(folder: Path) -> dict[str, Subject]:
    """Readers that need a package which not everybody has."""
    found = {}
    if find_spec("gguf") is not None:
        found["gguf"] = Subject(".gguf", [_gguf(folder)], _open_checkpoint)
    if find_spec("pillow_heif") is not None:
        found["picture heic"] = Subject(".heic", [_heic()], read_picture)
    if find_spec("av") is not None:
        found["animation"] = Subject(".webp", [_animation()], _watch)
        found["clip"] = Subject(".mp4", _clips(), _watch)
    return found


def _image(array: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def _with_profile() -> list[bytes]:
    """Pictures whose profile is sRGB, and one that says red for green, so that colors are converted."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = plain.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return [_image(_PICTURE, "jpeg", icc_profile=profile) for profile in (other, plain)]


def _exr_pictures(folder: Path) -> list[bytes]:
    import OpenEXR

    def write(path: Path, pixels: np.ndarray, **attributes: Any) -> None:
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **attributes}
        OpenEXR.File(header, {"RGBA"[: pixels.shape[2]]: pixels}).write(str(path))

    half = np.concatenate([_PICTURE, _PICTURE[..., :1]], -1).astype(np.float16) / 255
    aces = {"chromaticities": (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)}
    first = _written(folder / "p.exr", lambda path: write(path, half))
    return [first, _written(folder / "p.exr", lambda path: write(path, _PICTURE.astype(np.float32) / 64, **aces))]


def _heic() -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(_PICTURE.repeat(4, 0).repeat(4, 1))).save(file, quality=80)
    return file.getvalue()


def _animation() -> bytes:
    first, *others = (Image.fromarray(np.roll(_PICTURE, shift, 1)) for shift in range(3))
    file = io.BytesIO()
    first.save(file, "webp", save_all=True, append_images=others, duration=[40, 80, 40], lossless=True)
    return file.getvalue()


def _clips() -> list[bytes]:
    import av

    found = []
    for codec, kind in (("mpeg4", "mp4"), ("ffv1", "matroska")):
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as made:
            stream = made.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 16, 12, "yuv420p"
            for shift in range(3):
                made.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(_PICTURE, shift, 1), format="rgb24")))
            made.mux(stream.encode(None))
        found.append(file.getvalue())
    return found


def _watch(path: Path) -> list[np.ndarray]:
    with open_clip(path) as clip:
        return list(islice(clip, 64))


def _written(path: Path, write: Callable[[Path], object]) -> bytes:
    write(path)
    return path.read_bytes()


def _exr(folder: Path) -> list[bytes]:
    import OpenEXR

    found = [_written(folder / "d.exr", lambda path: write_exr(path, _DEPTH))]
    channels = {"R": _DEPTH, "G": _DEPTH, "B": _DEPTH, "Normal.X": _DEPTH, "Depth.V": _DEPTH.astype(np.float16)}
    for compression in ("NO", "RLE", "ZIPS", "PIZ", "PXR24", "B44", "DWAA"):
        header = {"type": OpenEXR.scanlineimage, "compression": getattr(OpenEXR, f"{compression}_COMPRESSION")}
        found.append(_written(folder / "d.exr", lambda p, h=header: OpenEXR.File(h, channels).write(str(p))))  # type: ignore[misc]
    tiled = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    found.append(_written(folder / "d.exr", lambda path: OpenEXR.File(tiled, {"Z": _DEPTH}).write(str(path))))
    parts = [OpenEXR.Part({"type": OpenEXR.scanlineimage}, {"Z": _DEPTH}, name) for name in ("rgba", "depth")]
    found.append(_written(folder / "d.exr", lambda path: OpenEXR.File(parts).write(str(path))))
    return found


def _depth_png(folder: Path) -> list[bytes]:
    own = _written(folder / "d.png", lambda path: write_16_bit(path, _DEPTH))
    return [own, _image((_DEPTH * 1000).astype(np.uint16), "png"), _image(_GRAY, "png")]


def _as_mask(folder: Path) -> Callable[[Path], object]:
    depth = folder / "of-mask.npy"
    np.save(depth, _DEPTH)
    return lambda path: read_depth(depth, mask=path)


def _ply() -> list[bytes]:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20, 3, generator=generator)
    colors = torch.randint(0, 256, (20, 3), dtype=torch.uint8, generator=generator)
    rows = "".join(f"{x:.3f} {y:.3f} {z:.3f} 255 0 9\n" for x, y, z in points.tolist())
    kinds = [*["float"] * 3, *["int"] * 3]
    names = "".join(f"property {kind} {name}\n" for kind, name in zip(kinds, "xyzrgb", strict=True))
    text = f"ply\nformat ascii 1.0\nelement vertex 20\n{names}end_header\n{rows}".encode()
    return [to_ply(PointCloud(points, colors, None, points)), text]


def _model_files(folder: Path) -> dict[str, bytes]:
    torch.manual_seed(0)
    save_model(ModalityForcingTransformer(_SIZES), folder / "model")
    return {file.name: file.read_bytes() for file in (folder / "model").iterdir()}


def _open_checkpoint(path: Path) -> None:
    header = read_header(path)
    check_tensors(header.shapes, header.architecture)
    load_model(path)


def _gguf(folder: Path) -> bytes:
    import gguf

    path = folder / "m.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    for name, tensor in ModalityForcingTransformer(_SIZES).state_dict().items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _open_with_config(model: dict[str, bytes]) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        path.replace(path.with_name("config.json"))
        path.with_name("model.safetensors").write_bytes(model["model.safetensors"])
        _open_checkpoint(path.parent)

    return read


def _index() -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": {"dit.img_in.weight": "a.safetensors"}}).encode()


def _open_with_index(model: dict[str, bytes]) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        path.replace(path.with_name("m.safetensors.index.json"))
        path.with_name("a.safetensors").write_bytes(model["model.safetensors"])
        _open_checkpoint(path.parent)

    return read


def _words(folder: Path) -> bytes:
    encoder = WordTextEncoder.random(["red", "cube"], 6, 4)
    return _written(folder / "words.safetensors", encoder.save)


def _autoencoders() -> list[bytes]:
    """A small FLUX.2 autoencoder as one file, under the original names and under those of diffusers."""
    torch.manual_seed(0)
    model = Autoencoder(Sizes(2, (32,), 1, (32,), 1))
    own = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    changes = (
        (r"\.(down|up)\.0\.block\.", r".\1_blocks.0.resnets."),
        (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0.to_"),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"(en|de)coder\.(post_)?quant_conv\.", r"\2quant_conv."),
    )
    theirs = {}
    for name, tensor in own.items():
        for pattern, replacement in changes:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor.flatten(1) if ".to_" in name and tensor.ndim == 4 else tensor
    return [save(own), save(theirs)]


_VARIANT = b'{"variant": "flux_rgbd_9b_v2"}'
_FACTS = json.dumps({"caption": ["a cube", "a ball"], "depth_kind": "metric", "depth_scale": 0.5}).encode()


def _tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _tar() -> bytes:
    files: dict[str, bytes] = {}
    for key in ("a", "b"):
        files |= {f"{key}.png": _image(_PICTURE, "png"), f"{key}.depth.npy": _npy(_DEPTH), f"{key}.json": _FACTS}
    return _tar_of({**files, "c.jpg": _image(_PICTURE, "jpeg"), "c.txt": b"a red cube"})


def _look(shard: TarShard | SceneShard) -> None:
    """What ``mforce data check`` does; it never raises, so that anything raised is a fault."""
    check = Check()
    check.add(shard)
    json.dumps(check.report())


def _facts_in_tar(path: Path) -> None:
    files = {"a.png": _image(_PICTURE, "png"), "a.depth.npy": _npy(_DEPTH), "a.json": path.read_bytes()}
    tar = path.with_name("facts.tar")
    tar.write_bytes(_tar_of(files))
    _look(TarShard(str(tar)))


def _scenes() -> bytes:
    tensors = {"rgb": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "depth": torch.ones(2, 4, 4, dtype=torch.float16)}
    return save(tensors, {"captions": json.dumps(["a cube", "a ball"]), "facts": "{}"})


def _tomls() -> list[bytes]:
    presets = Path(__file__).parent.parent / "training" / "configs"
    return [(presets / name).read_bytes() for name in ("nano-mf.toml", "klein-4b.toml")]


def _settings() -> bytes:
    return json.dumps(Settings("joint", "a cube", size=(64, 48)).to_dict()).encode()


def _read_settings(path: Path) -> None:
    values = json.loads(read_text(path))
    if isinstance(values, dict):  # the command line refuses other files before
        Settings.from_dict(values)
