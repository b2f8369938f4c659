"""The autoencoders: agreement with the release, all file forms, bad files and inputs, training."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mforce.mforce_core import load_autoencoder
from mforce.mforce_core.encoders.autoencoder import Autoencoder, Sizes
from mforce.mforce_core.encoders.autoencoder_files import AutoencoderError
from mforce.mforce_core.encoders.latent_space import pack_2x2, unpack_2x2
from mforce.mforce_core.encoders.patch_autoencoder import PatchAutoencoder, save_patch_autoencoder
from mforce.mforce_core.encoders.tiny_autoencoder import TinyAutoencoder
from mforce.scenes import render, sample_layouts
from mforce.training.nano import autoencoder as training

GOLDEN = Path(__file__).parent / "golden" / "vae"


@pytest.fixture(scope="module")
def io() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture
def one_file() -> dict[str, torch.Tensor]:
    """The golden autoencoder's tensors as the single file of BFL."""
    tensors = {}
    for part in ("encoder", "decoder"):
        for name, value in load_file(GOLDEN / f"ae_{part}.safetensors").items():
            tensors[name if name.startswith("bn.") else f"{part}.{name}"] = value
    return tensors


@pytest.fixture
def tiny() -> TinyAutoencoder:
    torch.manual_seed(0)
    model = TinyAutoencoder().requires_grad_(False)
    model.vae_scale.fill_(0.5)
    model.vae_shift.fill_(-0.25)
    return model


def save(tensors: dict[str, torch.Tensor], path: Path, **options) -> Path:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, **options)
    return path


class TestRelease:
    def test_encodes_and_decodes_as_the_release(self, io):
        model = load_autoencoder(GOLDEN)
        torch.testing.assert_close(model.encode(io["image"]), io["latent"], atol=1e-4, rtol=0)
        torch.testing.assert_close(model.decode(io["random_latent"]), io["decoded"], atol=1e-4, rtol=0)
        assert (model.spatial_factor, model.latent_channels) == (4, 32)

    def test_one_file_is_the_same_model(self, io, one_file, tmp_path):
        expected = load_autoencoder(GOLDEN).encode(io["image"])
        bfl = load_autoencoder(save(one_file, tmp_path / "flux2.safetensors"))
        assert torch.equal(bfl.encode(io["image"]), expected)

        beside = {re.sub(r"^(en|de)coder\.(post_)?quant_conv\.", r"\2quant_conv.", k): v for k, v in one_file.items()}
        beside.pop("bn.num_batches_tracked")
        assert "post_quant_conv.weight" in beside
        comfy = load_autoencoder(save(beside, tmp_path / "comfy.safetensors"))
        assert torch.equal(comfy.decode(io["random_latent"]), load_autoencoder(GOLDEN).decode(io["random_latent"]))

    def test_either_half_stands_for_both(self, io):
        whole, half = load_autoencoder(GOLDEN), load_autoencoder(GOLDEN / "ae_decoder.safetensors")
        assert torch.equal(half.encode(io["image"]), whole.encode(io["image"]))

    def test_folder_with_one_file(self, one_file, tmp_path):
        save(one_file, tmp_path / "ae.safetensors")
        assert isinstance(load_autoencoder(tmp_path), Autoencoder)

    def test_bfloat16_weights_keep_the_callers_dtype(self, io):
        model = load_autoencoder(GOLDEN, dtype=torch.bfloat16)
        latent = model.encode(io["image"])
        assert latent.dtype == torch.float32
        assert model.bn.running_var.dtype == torch.float32
        assert (latent - io["latent"]).norm() / io["latent"].norm() < 0.05

    def test_sizes_of_the_published_model(self):
        widths = (128, 256, 512, 512)
        with torch.device("meta"):
            model = Autoencoder(Sizes(32, widths, 2, widths, 3))
        assert (model.spatial_factor, model.latent_channels) == (16, 128)
        names = model.state_dict()
        assert names["encoder.quant_conv.weight"].shape == (64, 64, 1, 1)
        assert names["decoder.up.3.upsample.conv.weight"].shape == (512, 512, 3, 3)
        assert names["encoder.down.2.block.0.nin_shortcut.weight"].shape == (512, 256, 1, 1)


@pytest.fixture(scope="module")
def diffusers_model():
    """diffusers' own class, of the sizes of the golden autoencoder but with random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderKLFlux2(
        block_out_channels=(32, 64, 64), layers_per_block=1, latent_channels=8, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    model.bn.running_mean.normal_()
    model.bn.running_var.uniform_(0.5, 2)
    return model.requires_grad_(False).eval()


class TestDiffusers:
    def test_the_same_latents_and_pictures(self, diffusers_model, tmp_path):
        diffusers_model.save_pretrained(tmp_path / "vae")
        image = torch.rand(2, 3, 32, 48) * 2 - 1
        mean = pack_2x2(diffusers_model.encode(image).latent_dist.mean)
        bn = diffusers_model.bn
        statistics = [value.view(1, -1, 1, 1) for value in (bn.running_mean, (bn.running_var + bn.eps).sqrt())]
        expected = (mean - statistics[0]) / statistics[1]
        file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
        for path in (tmp_path, tmp_path / "vae", file):
            model = load_autoencoder(path)
            assert isinstance(model, Autoencoder)
            torch.testing.assert_close(model.encode(image), expected, atol=1e-5, rtol=0)
            decoded = diffusers_model.decode(unpack_2x2(expected * statistics[1] + statistics[0])).sample
            torch.testing.assert_close(model.decode(expected), decoded, atol=1e-5, rtol=0)

    def test_a_folder_of_a_transformer_is_none(self, diffusers_model, tmp_path):
        diffusers_model.save_pretrained(tmp_path / "vae")
        (tmp_path / "transformer").mkdir()
        save({"x_embedder.weight": torch.zeros(1)}, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
        assert isinstance(load_autoencoder(tmp_path), Autoencoder)
        with pytest.raises(AutoencoderError, match="not a FLUX"):
            load_autoencoder(tmp_path / "transformer")


class TestTiny:
    def test_round_trip_through_a_file(self, tiny, tmp_path):
        path = tmp_path / "autoencoder.safetensors"
        save(tiny.state_dict(), path)
        for loaded in (load_autoencoder(path), load_autoencoder(tmp_path)):
            image = torch.rand(1, 3, 32, 48) * 2 - 1
            latent = tiny.encode(image)
            assert latent.shape == (1, 128, 2, 3)
            assert torch.equal(loaded.encode(image), latent)
            assert torch.equal(loaded.decode(latent), tiny.decode(latent))

    def test_half_precision_file_runs_in_float32(self, tiny, tmp_path):
        path = tmp_path / "tiny.safetensors"
        save({name: value.half() for name, value in tiny.state_dict().items()}, path)
        assert load_autoencoder(path).taesd_encoder[0].weight.dtype == torch.float32

    def test_names_are_those_of_the_family(self, tiny):
        shapes = {name: tuple(tensor.shape) for name, tensor in tiny.state_dict().items()}
        assert shapes["taesd_encoder.0.weight"] == (64, 3, 3, 3)
        assert shapes["taesd_encoder.14.weight"] == (32, 64, 3, 3)
        assert shapes["taesd_decoder.1.weight"] == (64, 32, 3, 3)
        assert shapes["taesd_decoder.19.weight"] == (3, 64, 3, 3)
        assert shapes["vae_scale"] == shapes["vae_shift"] == ()
        wide = {name.rsplit(".", 2)[0] for name in shapes if name.endswith("pool.0.weight")}
        assert wide == {f"taesd_{part}.pool" for part in ("encoder.11", "encoder.12", "encoder.13")} | {
            f"taesd_{part}.pool" for part in ("decoder.3", "decoder.4", "decoder.5")
        }
        assert not any("skip" in name for name in shapes)
        without_bias = {int(n.split(".")[1]) for n in shapes if re.fullmatch(r"taesd_decoder\.\d+\.weight", n)}
        without_bias -= {int(n.split(".")[1]) for n in shapes if re.fullmatch(r"taesd_decoder\.\d+\.bias", n)}
        assert without_bias == {7, 12, 17}

    def test_scale_and_shift_are_undone(self, tiny):
        """Other latent scalars change the latents and not the round trip."""
        image = torch.rand(1, 3, 16, 16) * 2 - 1
        latent, result = tiny.encode(image), tiny.decode(tiny.encode(image))
        tiny.vae_scale.fill_(2.0)
        tiny.vae_shift.fill_(1.0)
        torch.testing.assert_close(tiny.encode(image), (latent + 0.25) * 0.5 / 2.0 + 1.0)
        torch.testing.assert_close(tiny.decode(tiny.encode(image)), result, atol=1e-4, rtol=1e-4)


def test_packing_order():
    latent = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    packed = pack_2x2(latent)
    for channel in range(2):
        for row in range(2):
            for column in range(2):
                expected = latent[0, channel, row::2, column::2]
                assert torch.equal(packed[0, 4 * channel + 2 * row + column], expected)
    assert torch.equal(unpack_2x2(packed), latent)


class TestBadFiles:
    def refuse(self, path: Path, pattern: str) -> None:
        with pytest.raises(ValueError, match=pattern) as caught:
            load_autoencoder(path)
        assert path.name in str(caught.value)

    def test_missing(self, tmp_path):
        self.refuse(tmp_path, "no autoencoder")
        self.refuse(tmp_path / "none.safetensors", "does not exist")

    def test_only_one_half(self, tmp_path):
        (tmp_path / "ae_decoder.safetensors").write_bytes((GOLDEN / "ae_decoder.safetensors").read_bytes())
        for path in (tmp_path, tmp_path / "ae_decoder.safetensors"):
            with pytest.raises(AutoencoderError, match=r"ae_encoder\.safetensors is missing"):
                load_autoencoder(path)

    def test_halves_of_different_models(self, tmp_path):
        for half in ("ae_encoder", "ae_decoder"):
            tensors = load_file(GOLDEN / f"{half}.safetensors")
            if half == "ae_decoder":
                tensors["bn.running_mean"] += 1
            save(tensors, tmp_path / f"{half}.safetensors")
        self.refuse(tmp_path, "different models")

    def test_truncated_and_foreign(self, one_file, tmp_path):
        path = save(one_file, tmp_path / "ae.safetensors")
        path.write_bytes(path.read_bytes()[:-100])
        self.refuse(path, "not a complete .safetensors file")
        path.write_bytes(b"PK\x03\x04 a pickle")
        self.refuse(path, "not a .safetensors file but a ZIP archive, as PyTorch pickles")

    def test_other_models(self, tmp_path):
        other = tmp_path / "other.safetensors"
        self.refuse(save({"img_in.weight": torch.zeros(2, 2)}, other), "not a FLUX.2 autoencoder")

    @pytest.mark.parametrize(
        ("change", "pattern"),
        [
            ({"encoder.mid.attn_1.q.bias": None}, "lacks 1 tensor.*encoder.mid.attn_1.q.bias"),
            ({"encoder.extra": torch.zeros(1)}, "has 1 unknown tensor.*encoder.extra"),
            (
                {"decoder.conv_out.bias": torch.zeros(4)},
                r"decoder.conv_out.bias has the shape \(4,\), not \(3,\)",
            ),
            ({"bn.running_mean": None}, "latent statistics"),
            ({"bn.running_var": -torch.ones(32)}, "negative"),
            ({"encoder.conv_in.bias": torch.full((32,), torch.nan)}, "not finite"),
            ({"encoder.conv_in.bias": torch.zeros(32, dtype=torch.int8)}, "quantized"),
            ({"decoder.up.1.block.0.conv1.weight": torch.zeros(48, 64, 3, 3)}, "widths"),
        ],
    )
    def test_wrong_tensors(self, one_file, tmp_path, change, pattern):
        tensors = {name: value for name, value in {**one_file, **change}.items() if value is not None}
        self.refuse(save(tensors, tmp_path / "ae.safetensors"), pattern)

    def test_wrong_tiny_tensors(self, tiny, tmp_path):
        tensors = dict(tiny.state_dict())
        tensors.pop("vae_shift")
        self.refuse(save(tensors, tmp_path / "a.safetensors"), "lacks 1 tensor.*vae_shift")
        self.refuse(
            save({**tiny.state_dict(), "vae_scale": torch.tensor(0.0)}, tmp_path / "b.safetensors"),
            "vae_scale",
        )

    def test_dtype(self):
        with pytest.raises(AutoencoderError, match="float16"):
            load_autoencoder(GOLDEN, dtype=torch.float16)


class TestBadInputs:
    @pytest.fixture(params=["release", "tiny"])
    def model(self, request, tiny):
        return tiny if request.param == "tiny" else load_autoencoder(GOLDEN)

    @pytest.mark.parametrize(
        ("image", "pattern"),
        [
            (torch.zeros(1, 4, 16, 16), r"\(batch, 3, height, width\)"),
            (torch.zeros(3, 16, 16), r"\(batch, 3, height, width\)"),
            (torch.zeros(1, 3, 16, 18), "18x16.*multiples"),
            (torch.zeros(0, 3, 16, 16), "multiples|empty"),
            (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "uint8"),
            (torch.full((1, 3, 16, 16), 255.0), "outside"),
            (torch.full((1, 3, 16, 16), torch.nan), "not finite"),
        ],
    )
    def test_images(self, model, image, pattern):
        with pytest.raises(ValueError, match=pattern):
            model.encode(image)

    def test_latents(self, model):
        channels = model.latent_channels
        with pytest.raises(ValueError, match=rf"\(batch, {channels}, height, width\)"):
            model.decode(torch.zeros(1, channels // 4, 2, 2))
        with pytest.raises(ValueError, match="not finite"):
            model.decode(torch.full((1, channels, 1, 1), torch.inf))
        with pytest.raises(ValueError, match="whole numbers"):
            model.decode(torch.zeros(1, channels, 1, 1, dtype=torch.long))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth pictures with one edge, uint8 (24, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(24, 3, 3, 3, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear", align_corners=True)
    smooth[:, :, 20:, :] *= 0.4
    return smooth.to(torch.uint8)


class TestPatch:
    @pytest.fixture
    def patch(self, images) -> PatchAutoencoder:
        torch.manual_seed(0)
        model = PatchAutoencoder().requires_grad_(False)
        model.set_principal_components(training.to_float(images))
        return model

    def test_linear_round_trip_is_the_best_of_rank_32(self, patch, images):
        """Against the eigenvalues of the patches' covariance: what 32 components cannot hold, and nothing more."""
        target = training.to_float(images)
        patches = target.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192).double()
        lost = torch.linalg.eigvalsh(torch.cov(patches.T))[:-32].clamp(min=0).sum() * (len(patches) - 1)
        # The mean patch comes back as its mean color: its pattern is lost when the components do not hold it.
        pattern = patches.mean(0).view(3, -1)
        lost = lost + len(patches) * (pattern - pattern.mean(1, keepdim=True)).square().sum()
        error = (patch.decode(patch.encode(target)) - target).double().square().sum()
        assert error <= lost * 1.001
        assert error >= lost * 0.2

    def test_latents_are_standard(self, patch, images):
        latent = patch.encode(training.to_float(images))
        assert latent.shape == (24, 128, 2, 2)
        assert abs(latent.mean()) < 1e-3
        assert abs(latent.std() - 1) < 1e-3

    def test_file_round_trip(self, patch, images, tmp_path):
        save_patch_autoencoder(patch, tmp_path / "autoencoder.safetensors")
        loaded = load_autoencoder(tmp_path)
        image = training.to_float(images[:2])
        assert torch.equal(loaded.decode(loaded.encode(image)), patch.decode(patch.encode(image)))
        assert (loaded.spatial_factor, loaded.latent_channels) == (16, 128)

    def test_encodes_like_a_convolution_of_its_parts(self, patch, images):
        """Latent channel c * 4 + 2 * row + column is component c of the patch at (row, column) of its 2x2."""
        image = training.to_float(images[:1])
        latent = patch.encode(image)
        piece = image[0, :, 8:16, 16:24]  # row 1 of patch row 0, column 0 of patch column 1
        expected = (patch.components.weight * piece).sum((1, 2, 3)) + patch.components.bias
        torch.testing.assert_close(latent[0, 2::4, 0, 1], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return (render(sample_layouts(32, seed=3), 64)[0] * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def wide(pictures) -> PatchAutoencoder:
    torch.manual_seed(0)
    model = PatchAutoencoder(window=16, cleaning_width=8, cleaning_layers=3).requires_grad_(False)
    model.set_principal_components(training.to_float(pictures))
    training.fit_windows(model, pictures, 200, torch.Generator().manual_seed(0))
    return model


class TestOverlap:
    @pytest.fixture
    def fitted(self, wide) -> PatchAutoencoder:
        return deepcopy(wide)

    def test_starts_as_the_patches_do(self, pictures):
        """Until they are fitted, the windows are zero around the patch."""
        target = training.to_float(pictures)
        wide, plain = PatchAutoencoder(window=16), PatchAutoencoder()
        for model in (wide, plain):
            model.set_principal_components(target)
        torch.testing.assert_close(wide.decode(wide.encode(target)), plain.decode(plain.encode(target)))

    def test_errors_of_latents_fade_out(self, fitted, pictures):
        """The same noise on the latents makes steps at the borders of patches that do not overlap."""
        target = training.to_float(pictures)
        plain = PatchAutoencoder().requires_grad_(False)
        plain.set_principal_components(target)
        noise = 0.2 * torch.randn(plain.encode(target).shape, generator=torch.Generator().manual_seed(1))
        seams = []
        for model in (fitted, plain):
            decoded = model.rough(model.encode(target) + noise) - model.rough(model.encode(target))
            steps = decoded.diff(dim=-1).abs().mean((0, 1, 2))
            border = torch.arange(1, decoded.shape[-1]) % 8 == 0
            seams.append(float(steps[border].mean() / steps[~border].mean()))
        assert seams[0] < 0.75 * seams[1]

    def test_borders_of_the_picture_are_like_the_inside(self, fitted):
        """An even picture has the same patch everywhere, at the border too."""
        even = torch.tensor([0.4, -0.2, 0.1])[None, :, None, None].expand(1, 3, 48, 64)
        rough = fitted.rough(fitted.encode(even))
        inside = rough[:, :, 16:24, 16:24].tile(1, 1, 6, 8)
        torch.testing.assert_close(rough, inside, rtol=0, atol=1e-5)

    def test_standard_latents_decode_alike(self, fitted, pictures):
        target = training.to_float(pictures)
        latent = fitted.encode(target)
        assert abs(latent.mean()) < 1e-3
        assert abs(latent.std() - 1) < 1e-3
        before = fitted.rough(latent)
        with torch.no_grad():
            fitted.components.weight.mul_(3)
            fitted.components.bias.mul_(3).add_(6)
            fitted.inverse.bias.sub_(6 / 3 * fitted.inverse.weight.sum((0, 2, 3)) / 64)
            fitted.inverse.weight.div_(3)
        fitted.standardize(target)
        torch.testing.assert_close(fitted.encode(target), latent, rtol=1e-3, atol=1e-3)
        # The mean latent is put back as its mean color; the pattern that it has inside a patch is lost.
        difference = fitted.rough(fitted.encode(target)) - before
        assert difference.mean((0, 2, 3)).abs().max() < 2e-3

    def test_a_file_knows_its_sizes(self, fitted, pictures, tmp_path):
        save_patch_autoencoder(fitted, tmp_path / "autoencoder.safetensors")
        loaded, image = load_autoencoder(tmp_path), training.to_float(pictures[:2])
        assert torch.equal(loaded.decode(loaded.encode(image)), fitted.decode(fitted.encode(image)))

    def test_sizes_that_cannot_be(self, fitted, tmp_path):
        with pytest.raises(ValueError, match="even number from 8 to 24"):
            PatchAutoencoder(window=26)
        path = tmp_path / "autoencoder.safetensors"
        save_patch_autoencoder(fitted, path)
        tensors = load_file(path)
        del tensors["cleaning.0.weight"]
        save(tensors, path)
        with pytest.raises(AutoencoderError, match="not those of a patch autoencoder"):
            load_autoencoder(path)


class TestTraining:
    @pytest.fixture
    def shards(self, images, tmp_path) -> Path:
        folder = tmp_path / "shards"
        folder.mkdir()
        large = torch.nn.functional.interpolate(images.float(), size=64).to(torch.uint8)
        save({"rgb": large.repeat(4, 1, 1, 1)}, folder / "scenes-00000.safetensors")
        return folder

    def test_cleaning_improves_and_keeps_the_encoder(self, shards, tmp_path):
        out = tmp_path / "autoencoder.safetensors"
        first = training.train(shards, out, linear_steps=20, steps=2)
        encoder = load_file(out)["components.weight"]
        second = training.train(shards, out, steps=60, seed=1, keep_encoder=True, cleaning_width=64)
        assert torch.equal(load_file(out)["components.weight"], encoder)
        assert load_file(out)["cleaning.0.weight"].shape[0] == 64
        assert second["psnr"] > first["linear_psnr"] + 0.1
        log = json.loads((tmp_path / "autoencoder_log.json").read_text())
        assert (log["steps"], log["cleaning_share"]) == (60, 0.4)

    def test_a_share_of_the_cleaning_is_added(self, shards, tmp_path):
        """Of the same training, so that the pictures differ by the share alone."""
        latent, added = torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(0)), []
        for share in (1.0, 0.25, 0.0):
            out = tmp_path / f"{share}.safetensors"
            training.train(shards, out, linear_steps=2, steps=4, cleaning_share=share)
            model = load_autoencoder(out, dtype=torch.float32)
            added.append(model.decode(latent) - model.rough(latent))
        assert added[0].abs().max() > 1e-3
        assert torch.allclose(added[1], 0.25 * added[0], atol=1e-6)
        assert not added[2].any()

    def test_number_of_pictures(self, shards):
        assert len(training.read_images(shards, 70)) == 70
        with pytest.raises(ValueError, match=r"96 pictures; 97 were asked for"):
            training.read_images(shards, 97)

    def test_wrong_shards(self, tmp_path):
        with pytest.raises(ValueError, match=r"no \.safetensors shards"):
            training.read_images(tmp_path)
        save({"depth": torch.zeros(1)}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="no tensor named rgb"):
            training.read_images(tmp_path)
