"""Every reader of outside data, with whole files to damage and the errors that it documents."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
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
    optional = {} if find_spec("gguf") is None else {"gguf": Subject(".gguf", [_gguf(folder)], _open_checkpoint)}
    return {
        **optional,
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


def _image(array: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


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
