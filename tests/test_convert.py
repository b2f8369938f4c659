"""Conversion to single files: what is written, that it is the same model, memory, and every refusal."""

import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.cli.checkpoint_info import describe_checkpoint
from mforce.mforce_core import load_autoencoder, load_model
from mforce.mforce_core.conversion.convert import ConversionError, convert_autoencoder, convert_model
from mforce.mforce_core.conversion.memory import count_parameters, largest_layer, weight_bytes
from mforce.mforce_core.model.config import Architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights import safetensors_writer as writer
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.quantization import dequantize, quantize_fp8, quantize_int8, rotate
from mforce.mforce_core.weights.safetensors_writer import DiskSpaceError, Slot, safetensors_writer
from mforce.mforce_core.weights.tensor_files import CheckpointError

GOLDEN = Path(__file__).parent / "golden" / "v2"
VAE = Path(__file__).parent / "golden" / "vae"
NANO = Path(__file__).parents[1] / "models" / "nano"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The golden model in bfloat16 with a float32 depth head, as a release in two shards with metadata."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(GOLDEN / "config.json", folder)
    weights = {
        name: tensor if "depth_final_layer" in name else tensor.bfloat16()
        for name, tensor in load_file(GOLDEN / "model.safetensors").items()
    }
    names = sorted(weights)
    for shard, part in ((1, names[:20]), (2, names[20:])):
        file = folder / f"diffusion_model-0000{shard}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, file, {"format": "pt", "author": "them"})
    return folder


def forward(path: Path, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = load_model(path, dtype=dtype)
    c = model.config
    streams = torch.randn(1, 12, c.in_channels), torch.randn(1, 12, c.depth_channels)
    return model(*streams, torch.randn(1, 7, c.context_in_dim), torch.tensor([0.6]), torch.tensor([0.8]), (3, 4))


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


class TestModel:
    def test_sixteen_bits_are_the_release_in_one_file(self, release, tmp_path):
        out = tmp_path / "one.safetensors"
        convert_model(release, out)
        for found, wanted in zip(forward(out), forward(release), strict=True):
            assert torch.equal(found, wanted)
        header, before = read_header(out), read_header(release)
        assert header.prefix == ""
        assert (header.config.architecture, header.config.schedule) == (before.architecture, before.config.schedule)
        with safe_open(out, "pt") as file:
            metadata = file.metadata()
        assert metadata["author"] == "them"
        assert json.loads(metadata["config"])["grid"] == json.loads((release / "config.json").read_text())["grid"]

    def test_a_single_file_can_be_converted_again(self, tmp_path):
        first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
        convert_model(GOLDEN, first, to="fp32")
        convert_model(first, second, to="fp32")
        assert first.read_bytes() == second.read_bytes()

    @pytest.mark.parametrize(("to", "limits"), [("fp8", (0.02, 0.02)), ("int8", (0.007, 0.006))])
    def test_errors_of_eight_bits(self, to, limits, tmp_path):
        """Of the RGB velocity and the clean depth, relative; measured: fp8 1.4% and 1.5%, int8 0.5% and 0.4%."""
        out = tmp_path / f"{to}.safetensors"
        convert_model(GOLDEN, out, to=to)
        wanted = forward(GOLDEN, torch.float32)
        for found, reference, limit in zip(forward(out, torch.float32), wanted, limits, strict=True):
            assert 1e-4 < error(found, reference) < limit

    def test_only_matrices_of_blocks_are_quantized(self, tmp_path):
        out = tmp_path / "fp8.safetensors"
        convert_model(GOLDEN, out, to="fp8")
        tensors = load_file(out)
        eight_bit = {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
        blocks = {name for name in read_header(GOLDEN).shapes if "_blocks." in name and name.endswith("weight")}
        assert eight_bit == blocks
        assert tensors["depth_final_layer.linear.weight"].dtype == torch.float32
        assert tensors["img_in.weight"].dtype == torch.bfloat16
        assert describe_checkpoint(out).quantized == {"float8_e4m3fn": len(blocks)}
        assert describe_checkpoint(out).problems == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("quantized", r"quantized already \(int8_tensorwise\)"),
            ("unscaled", r"quantized already \(F8_E4M3\)"),
            ("truncated", "not a complete .safetensors file"),
            ("missing", "1 missing tensor"),
            ("absent", "does not exist"),
            ("exists", "exists already"),
            ("itself", "is the file that is converted"),
            ("ending", "ends in .safetensors"),
            ("nowhere", "folder .* does not exist"),
        ],
    )
    def test_refusals_are_one_sentence_and_leave_nothing(self, change, message, tmp_path):
        source, out = tmp_path / "source.safetensors", tmp_path / "out" / "out.safetensors"
        out.parent.mkdir()
        convert_model(GOLDEN, source, to="int8" if change == "quantized" else "bf16")
        if change == "unscaled":
            tensors = load_file(source)
            tensors["single_blocks.0.linear1.weight"] = tensors["single_blocks.0.linear1.weight"].to(
                torch.float8_e4m3fn
            )
            save_file(tensors, source)
        elif change == "truncated":
            source.write_bytes(source.read_bytes()[:-100])
        elif change == "missing":
            with safe_open(source, "pt") as file:
                metadata = file.metadata()
            tensors = load_file(source)
            del tensors["txt_in.weight"]
            save_file(tensors, source, metadata)
        elif change == "absent":
            source = tmp_path / "no.safetensors"
        elif change == "exists":
            out.write_bytes(b"precious")
        else:
            nowhere = out.parent / "no" / "out.safetensors"
            out = {"itself": source, "ending": out.with_suffix(".pt"), "nowhere": nowhere}.get(change, out)
        with pytest.raises(ValueError, match=message) as caught:
            convert_model(source, out, overwrite=change == "itself")
        assert "\n" not in str(caught.value)
        assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [b"precious"] * (change == "exists")

    def test_a_canceled_run_leaves_nothing(self, tmp_path):
        def cancel(done: int, total: int) -> None:
            if done == 5:
                assert list(tmp_path.iterdir()) == [tmp_path / "out.safetensors.part"]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert_model(GOLDEN, tmp_path / "out.safetensors", progress=cancel)
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_is_named_before_anything_is_written(self, tmp_path, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage(10, 9, 1))
        with pytest.raises(DiskSpaceError, match=r"needs .* GiB and .* has 0.0 GiB free"):
            convert_model(GOLDEN, tmp_path / "out.safetensors")
        assert not list(tmp_path.iterdir())


_MEASURE = """
import re, sys
from pathlib import Path
from mforce.mforce_core.conversion.convert import convert_model

def peak():  # ru_maxrss would count the parent process too
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

before = peak()
convert_model(Path(sys.argv[1]), Path(sys.argv[2]), to=sys.argv[3])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("to", ["bf16", "fp8"])
def test_memory_of_a_conversion_depends_on_the_largest_tensor(to, tmp_path):
    """A file of 380 MB whose largest tensor is 11 MB."""
    sizes = {"hidden_size": 768, "num_heads": 8, "axes_dim": [24, 24, 24, 24], "context_in_dim": 768}
    architecture = Architecture(depth_double=2, depth_single=16, depth_decoder_num_layers=0, **sizes)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture.to_dict()}))
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in ModalityForcingTransformer(architecture).state_dict().items()}
    file = tmp_path / "model.safetensors"
    slots = {f"dit.{name}": Slot(torch.bfloat16, tuple(shape)) for name, shape in shapes.items()}
    with safetensors_writer(file, slots, {}) as write:
        for name, slot in slots.items():
            write(name, torch.full(slot.shape, 0.01, dtype=torch.bfloat16))
    assert file.stat().st_size > 350e6
    command = [sys.executable, "-c", _MEASURE, str(tmp_path), str(tmp_path / "out.safetensors"), to]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken < file.stat().st_size / 2


class TestQuantization:
    @pytest.mark.parametrize(("quantize", "limit"), [(quantize_fp8, 1 / 16), (quantize_int8, None)])
    def test_there_and_back(self, quantize, limit):
        """fp8 has three bits after the leading one; int8 rounds to half of its step, in the rotated basis."""
        torch.manual_seed(0)
        weight = torch.randn(40, 512) * torch.rand(40, 1)
        values, scale, settings = quantize(weight)
        back = dequantize(values, scale, settings)
        if limit is None:
            assert ((rotate(back, 256) - rotate(weight, 256)).abs() <= 0.501 * scale).all()
        else:
            near_zero = 2.0**-9 * scale / 2
            assert ((back - weight).abs() <= limit * weight.abs() + near_zero).all()

    def test_zeros_stay_zeros(self):
        for quantize in (quantize_fp8, quantize_int8):
            values, scale, settings = quantize(torch.zeros(4, 256))
            assert not dequantize(values, scale, settings).any()

    @given(st.sampled_from([16, 64, 256]), st.integers(0, 1000))
    @settings(max_examples=10, deadline=None)
    def test_rotation_is_orthogonal_and_its_own_inverse(self, group, seed):
        weight = torch.randn(3, 2 * group, generator=torch.Generator().manual_seed(seed))
        turned = rotate(weight, group)
        torch.testing.assert_close(turned.norm(), weight.norm())
        torch.testing.assert_close(rotate(turned, group), weight, atol=1e-5, rtol=0)


class TestWriter:
    @given(st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(writer.DTYPES)), st.lists(st.integers(0, 5), max_size=3)),
        min_size=1, max_size=8,
    ))  # fmt: skip
    @settings(max_examples=40, deadline=None)
    def test_the_library_reads_what_was_written(self, tmp_path_factory, layout):
        path = tmp_path_factory.mktemp("written") / "file.safetensors"
        slots = {name: Slot(writer.DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in layout.items()}
        tensors = {n: torch.randint(-9, 9, slot.shape).to(slot.dtype) for n, slot in slots.items()}
        with safetensors_writer(path, slots, {"näme": "välue"}) as write:
            for name in reversed(tensors):
                write(name, tensors[name])
        found = load_file(path)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name].float(), tensor.float())
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"näme": "välue"}

    def test_a_slot_left_empty_is_a_fault(self, tmp_path):
        with pytest.raises(ValueError, match="1 tensors were not written"):  # noqa: SIM117
            with safetensors_writer(tmp_path / "x.safetensors", {"a": Slot(torch.float32, (2,))}, {}):
                pass
        assert not list(tmp_path.iterdir())


class TestAutoencoder:
    @pytest.mark.parametrize("half", ["ae_encoder.safetensors", "ae_decoder.safetensors"])
    def test_one_file_is_the_same_autoencoder(self, half, tmp_path):
        out = tmp_path / "vae.safetensors"
        convert_autoencoder(VAE / half, out)
        io = load_file(VAE / "io.safetensors")
        one, two = load_autoencoder(out), load_autoencoder(VAE)
        assert torch.equal(one.encode(io["image"]), two.encode(io["image"]))
        assert torch.equal(one.decode(io["random_latent"]), two.decode(io["random_latent"]))

    def test_sixteen_bits_keep_the_statistics(self, tmp_path):
        out = tmp_path / "vae.safetensors"
        convert_autoencoder(VAE / "ae_encoder.safetensors", out, to="bf16")
        tensors = load_file(out)
        assert tensors["decoder.conv_in.weight"].dtype == torch.bfloat16
        assert tensors["bn.running_var"].dtype == torch.float32

    def test_refusals(self, tmp_path):
        with pytest.raises(ConversionError, match="convolutions are not quantized"):
            convert_autoencoder(VAE / "ae_encoder.safetensors", tmp_path / "vae.safetensors", to="fp8")
        shutil.copy(VAE / "ae_encoder.safetensors", tmp_path)
        with pytest.raises(ValueError, match=r"ae_decoder.safetensors is missing"):
            convert_autoencoder(tmp_path, tmp_path / "vae.safetensors")


class TestCommand:
    def run(self, *arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout, " ".join(result.stderr.split())

    def test_converts_a_model_and_an_autoencoder(self, tmp_path):
        out = tmp_path / "model.safetensors"
        code, stdout, stderr = self.run("convert", GOLDEN, out, "--to", "int8")
        assert (code, stdout.strip()) == (0, str(out))
        assert "models/diffusion_models" in stderr
        assert load_model(out).config == load_model(GOLDEN).config
        code, _, stderr = self.run("convert", VAE / "ae_decoder.safetensors", tmp_path / "vae.safetensors")
        assert (code, "models/vae" in stderr) == (0, True)

    def test_asks_before_it_overwrites(self, tmp_path):
        out = tmp_path / "model.safetensors"
        out.write_bytes(b"precious")
        code, _, stderr = self.run("convert", GOLDEN, out)
        assert (code, out.read_bytes()) == (2, b"precious")
        assert re.fullmatch(r"Error: .* exists already: .*--overwrite\)\.", stderr)
        assert self.run("convert", GOLDEN, out, "--overwrite")[0] == 0
        load_model(out)

    def test_an_unknown_precision_is_named(self, tmp_path):
        code, _, stderr = self.run("convert", GOLDEN, tmp_path / "out.safetensors", "--to", "fp4")
        assert (code, "--to fp4 is unknown: choose bf16, fp32, fp8 or int8." in stderr) == (2, True)

    def test_info_tells_memory(self):
        code, stdout, _ = self.run("info", "nano", "--memory", "--json")
        memory = json.loads(stdout)["memory"]
        model = load_model(NANO)
        assert code == 0
        assert sum(memory["parameters"].values()) == sum(p.numel() for p in model.parameters())
        assert sum(memory["bytes"]["bf16"].values()) == sum(t.nbytes for t in model.state_dict().values())
        assert "Weights in memory" in self.run("info", "nano", "--memory")[1]


def test_memory_of_the_published_model():
    """11.99 B parameters; the converted golden model tells that the sizes are those of the files."""
    assert sum(count_parameters(Architecture()).values()) == pytest.approx(11.99e9, rel=1e-3)
    assert largest_layer(Architecture(), "bf16") == 2 * 9 * 4096 * 4096


@pytest.mark.parametrize("to", ["bf16", "fp32", "fp8", "int8"])
def test_sizes_are_those_of_the_files(to, tmp_path):
    out = tmp_path / "out.safetensors"
    convert_model(GOLDEN, out, to=to)
    stored = sum(tensor.nbytes for tensor in load_file(out).values())
    assert sum(weight_bytes(read_header(out).architecture, to).values()) == stored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scale", "1 quantized layer.* lack the scale"),
        ("marker", "does not hold the format"),
        ("format", "read by ComfyUI only"),
        ("stray", r"1 unexpected tensor\(s\): img_in.weight_scale"),
    ],
)
def test_broken_quantized_files_get_one_sentence(change, message, tmp_path):
    file, layer = tmp_path / "fp8.safetensors", "single_blocks.0.linear1"
    convert_model(GOLDEN, file, to="fp8")
    tensors = load_file(file)
    if change == "scale":
        del tensors[f"{layer}.weight_scale"]
    elif change == "marker":
        tensors[f"{layer}.comfy_quant"] = torch.zeros(3, dtype=torch.uint8)
    elif change == "format":
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(b'{"format": "mxfp8"}'), dtype=torch.uint8)
    else:
        tensors["img_in.weight_scale"] = torch.ones(())
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(file)
    assert "\n" not in str(caught.value)
