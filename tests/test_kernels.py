"""Each step against an independent formulation in float64, from PyTorch's own modules or complex arithmetic."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mforce.kernels import (
    Modulation,
    Segment,
    adaln,
    attention,
    gated_residual,
    gated_residual_adaln,
    qk_norm_rope,
    rope_table,
    swiglu,
)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def relative(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def draw_segments(lengths: tuple[int, ...], batch: int, channels: int, dtype: torch.dtype) -> list[Segment]:
    return [Segment(n, Modulation(*torch.randn(3, batch, channels).to(dtype))) for n in lengths]


def per_token(segments: list[Segment], name: str) -> torch.Tensor:
    """One vector a token, (B, L, C), float64: what the kernels avoid to make."""
    return torch.cat([getattr(m, name).double()[:, None].expand(-1, length, -1) for length, m in segments], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(1,), (17, 130), (5, 0, 3)])
def test_adaln_and_gated_residual(lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    segments, following = (draw_segments(lengths, 2, 32, dtype) for _ in range(2))
    x, y = torch.randn(2, 2, sum(lengths), 32).to(dtype)
    norm = torch.nn.LayerNorm(32, eps=1e-6, elementwise_affine=False)

    def exact_adaln(tokens: torch.Tensor, vectors: list[Segment]) -> torch.Tensor:
        return norm(tokens) * (1 + per_token(vectors, "scale")) + per_token(vectors, "shift")

    residual = x.double() + per_token(segments, "gate") * y.double()
    assert relative(adaln(x, segments), exact_adaln(x.double(), segments)) < TOLERANCE[dtype]
    assert relative(gated_residual(x, y, segments), residual) < TOLERANCE[dtype]
    fused_x, fused_h = gated_residual_adaln(x, y, segments, following)
    assert relative(fused_x, residual) < TOLERANCE[dtype]
    assert relative(fused_h, exact_adaln(residual, following)) < TOLERANCE[dtype]


def test_segments_must_cover_the_sequence() -> None:
    segments = draw_segments((3,), 1, 8, torch.float32)
    with pytest.raises(ValueError, match="cover 3 tokens, the sequence has 4"):
        adaln(torch.zeros(1, 4, 8), segments)
    with pytest.raises(ValueError, match="no gate"):
        gated_residual(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), [Segment(3, Modulation(*torch.zeros(2, 1, 8)))])


def test_rope_rotates_each_pair_by_its_axis_angle() -> None:
    torch.manual_seed(0)
    positions = torch.randint(0, 40, (7, 4)).float()
    axes, theta = (4, 8, 4, 8), 2000.0
    table = rope_table(positions, axes, theta)
    angles = torch.cat(
        [
            positions[:, axis, None].double() * theta ** (-torch.arange(0, dim, 2).double() / dim)
            for axis, dim in enumerate(axes)
        ],
        dim=1,
    )
    qkv = torch.randn(2, 7, 3, 2, 24)
    query_scale, key_scale = torch.rand(2, 24) + 0.5
    q, k, v = qk_norm_rope(qkv, query_scale, key_scale, table)
    for ours, index, scale in ((q, 0, query_scale), (k, 1, key_scale)):
        norm = torch.nn.RMSNorm(24, eps=1e-6).double()
        norm.weight.data = scale.double()
        pairs = torch.view_as_complex(norm(qkv[:, :, index].double()).unflatten(-1, (-1, 2)).contiguous())
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        assert relative(ours, torch.view_as_real(turned).flatten(-2).detach()) < 1e-5
    assert torch.equal(v, qkv[:, :, 2])


def test_attention_forms_agree() -> None:
    """The materialised form that training uses and the fused one, values and gradients, strided inputs."""
    torch.manual_seed(0)
    packed = torch.randn(2, 17, 3, 2, 16, requires_grad=True)
    out = attention(*packed.unbind(2))
    exact = scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in packed.unbind(2)))
    exact = exact.transpose(1, 2).flatten(2)
    assert relative(out.detach(), exact.detach()) < 1e-5
    with torch.no_grad():
        assert relative(attention(*packed.unbind(2)), exact) < 1e-5
    (ours,) = torch.autograd.grad(out.sin().sum(), packed)
    (theirs,) = torch.autograd.grad(exact.sin().sum(), packed)
    assert relative(ours, theirs.double()) < 1e-5


def test_swiglu() -> None:
    x = torch.randn(3, 5, 12)
    gate, value = x.double()[..., :6], x.double()[..., 6:]
    assert relative(swiglu(x), gate * gate.sigmoid() * value) < 1e-6
