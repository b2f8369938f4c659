"""The transformer's sizes, names and refusals."""

import pytest
import torch

from mforce.mforce_core.model.config import VARIANTS, Architecture, ConfigError, infer_architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from tiny_model import TINY


def on_meta(architecture: Architecture) -> ModalityForcingTransformer:
    with torch.device("meta"):
        return ModalityForcingTransformer(architecture)


def test_published_model_has_the_published_size() -> None:
    state = on_meta(VARIANTS["flux_rgbd_9b_v2"]).state_dict()
    assert len(state) == 279
    assert sum(tensor.numel() for tensor in state.values()) == 11_986_285_570
    # One name of each kind that the specification lists.
    for name, shape in {
        "img_in.weight": (4096, 128),
        "txt_in.weight": (4096, 12288),
        "depth_in.weight": (4096, 256),
        "time_in.in_layer.weight": (4096, 256),
        "time_in_depth_to_img.out_layer.weight": (4096, 4096),
        "cross_alpha_depth": (1,),
        "double_stream_modulation_txt.lin.weight": (6 * 4096, 4096),
        "single_stream_modulation_depth.lin.weight": (3 * 4096, 4096),
        "double_blocks.7.depth_attn.qkv.weight": (3 * 4096, 4096),
        "double_blocks.7.txt_attn.norm.key_norm.scale": (128,),
        "double_blocks.7.img_mlp.0.weight": (6 * 4096, 4096),
        "double_blocks.7.img_mlp.2.weight": (4096, 3 * 4096),
        "single_blocks.23.linear1.weight": (9 * 4096, 4096),
        "single_blocks.23.linear2.weight": (4096, 4 * 4096),
        "depth_decoder_blocks.3.norm.query_norm.scale": (128,),
        "final_layer.adaLN_modulation.1.weight": (2 * 4096, 4096),
        "depth_final_layer.linear.weight": (256, 4096),
    }.items():
        assert tuple(state[name].shape) == shape


def test_published_model_runs_on_meta() -> None:
    model = on_meta(VARIANTS["flux_rgbd_9b_v2"])
    with torch.device("meta"):
        rgb, depth = model(
            torch.empty(1, 1024, 128),
            torch.empty(1, 1024, 256),
            torch.empty(1, 512, 12288),
            torch.empty(1),
            torch.empty(1),
            (32, 32),
        )
    assert rgb.shape == (1, 1024, 128)
    assert depth is not None
    assert depth.shape == (1, 1024, 256)


@pytest.mark.parametrize(
    ("sizes", "context", "heads"), [((3072, 5, 20), 7680, 24), ((4096, 8, 24), 12288, 32)], ids=["4B", "9B"]
)
def test_klein_bases_are_recognized_from_their_tensors(sizes: tuple[int, int, int], context: int, heads: int) -> None:
    hidden, double, single = sizes
    base = Architecture(
        depth_channels=0,
        context_in_dim=context,
        hidden_size=hidden,
        num_heads=heads,
        depth_double=double,
        depth_single=single,
        depth_decoder_num_layers=0,
        cross_stream_timestep_mixing=False,
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in on_meta(base).state_dict().items()}
    assert infer_architecture(shapes) == base


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_recognized_from_their_tensors(variant: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in on_meta(VARIANTS[variant]).state_dict().items()}
    assert infer_architecture(shapes) == VARIANTS[variant]


def test_guidance_embedding_and_no_decoder_blocks() -> None:
    architecture = Architecture(**TINY.to_dict() | {"use_guidance_embed": True, "depth_decoder_num_layers": 0})
    torch.manual_seed(0)
    model = ModalityForcingTransformer(architecture)
    inputs = torch.randn(1, 4, 8), torch.randn(1, 4, 16), torch.randn(1, 3, 12), torch.ones(1), torch.ones(1)
    weak, _ = model(*inputs, (2, 2), torch.ones(1))
    strong, depth = model(*inputs, (2, 2), 4 * torch.ones(1))
    assert depth is not None
    assert not torch.allclose(weak, strong)
    with pytest.raises(ValueError, match="guidance"):
        model(*inputs, (2, 2))


def test_without_depth_the_model_is_its_text_to_image_half() -> None:
    torch.manual_seed(0)
    model = ModalityForcingTransformer(TINY)
    base = ModalityForcingTransformer(
        Architecture(
            **TINY.to_dict()
            | {"depth_channels": 0, "depth_decoder_num_layers": 0, "cross_stream_timestep_mixing": False}
        )
    )
    base.load_state_dict({name: model.state_dict()[name] for name in base.state_dict()})
    rgb, text, t = torch.randn(2, 4, 8), torch.randn(2, 3, 12), torch.rand(2)
    ours, depth = model(rgb, None, text, t, None, (2, 2))
    assert depth is None
    torch.testing.assert_close(ours, base(rgb, None, text, t, None, (2, 2))[0])
    with pytest.raises(ValueError, match="without a depth stream"):
        base(rgb, torch.randn(2, 4, 16), text, t, t, (2, 2))


@pytest.mark.parametrize(
    ("rgb", "text", "message"),
    [
        ((1, 5, 8), (1, 3, 12), r"rgb must be \(B, 4, 8\)"),
        ((1, 4, 8), (1, 3, 13), r"text must be \(B, T, 12\)"),
    ],
)
def test_misfitting_shapes_are_named(rgb: tuple, text: tuple, message: str) -> None:
    model = ModalityForcingTransformer(TINY)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(rgb), torch.zeros(1, 4, 16), torch.zeros(text), torch.ones(1), torch.ones(1), (2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "not divisible"),
        ({"axes_dim": [4, 4, 4, 8]}, "axes_dim"),
        ({"depth_channels": 15}, "square patch"),
        ({"hidden_size": 0}, "positive integer"),
        ({"width": 3}, "unknown architecture key"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Architecture.from_dict(TINY.to_dict() | change)
