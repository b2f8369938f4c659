"""A small network that names the solid in a picture, trained on rendered scenes alone.

It is the independent judge of the shapes that a model draws: it never saw a made picture. Half of its training pictures
went through the autoencoder, so that it judges what is drawn and not the autoencoder's softness.

``python -m mforce.evaluation.judge`` trains it again and writes the file that ships.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from ..mforce_core.encoders.autoencoder_files import load_autoencoder
from ..mforce_core.release import NANO_SIZE
from ..scenes import SceneLayout, render, sample_layouts
from ..scenes.vocabulary import SHAPES

WEIGHTS = Path(__file__).parent / "judge.safetensors"
NANO = Path(__file__).parent.parent / "models" / "nano"

_SIDE = 64
_WIDTHS = (16, 32, 48, 64)


class ShapeJudge(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> scores (B, 4) of the shapes, in the vocabulary's order."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU(), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, len(SHAPES))

    def forward(self, images: Tensor) -> Tensor:
        small = interpolate(images, (_SIDE, _SIDE), mode="area")
        return self.head(self.features(2 * small - 1).amax((2, 3)))

    @torch.no_grad()
    def shapes(self, images: Tensor) -> Tensor:
        """Index of the shape in each picture, (B,)."""
        return self(images).argmax(1)


def load_judge() -> ShapeJudge:
    """The judge that ships with the package, in eval mode."""
    judge = ShapeJudge()
    judge.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return judge.requires_grad_(False).eval()


def lone_objects(count: int, seed: int, shape: str | None = None) -> SceneLayout:
    """The first ``count`` scenes of a sequence that show one object, of one shape where it is named."""
    found = sample_layouts(0, seed)
    drawn = 0
    while len(found) < count:
        more = sample_layouts(4 * count, seed, drawn)
        drawn += len(more)
        wanted = more.exists.sum(1) == 1
        if shape is not None:
            wanted &= more.shape[:, 0] == SHAPES.index(shape)
        found = SceneLayout(**{name: torch.cat((kept, vars(more[wanted])[name])) for name, kept in vars(found).items()})
    return found[:count]


def train_judge(scenes: int, steps: int, seed: int) -> ShapeJudge:
    """Train a judge on rendered scenes of one object.

    Args:
        scenes: rendered pictures; half of them also go through the built-in model's autoencoder.
        steps: of AdamW, 64 pictures each, mirrored and brightened at random.
        seed: of the scenes and of every draw.
    """
    torch.manual_seed(seed)
    layout = lone_objects(scenes, seed)
    images, labels = render(layout, NANO_SIZE, compiled=True)[0], layout.shape[:, 0]
    autoencoder = load_autoencoder(NANO)
    with torch.no_grad():
        for rows in torch.arange(scenes // 2).split(64):
            images[rows] = autoencoder.decode(autoencoder.encode(2 * images[rows] - 1)).clamp(-1, 1) / 2 + 0.5
    judge = ShapeJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(scenes, (64,))
        batch = images[rows] * (0.8 + 0.4 * torch.rand(64, 1, 1, 1))
        batch = torch.where(torch.rand(64, 1, 1, 1) < 0.5, batch, batch.flip(3)).clamp(0, 1)
        loss = cross_entropy(judge(batch), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.requires_grad_(False).eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the judge of shapes again.")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    judge = train_judge(options.scenes, options.steps, seed=7)
    held_out = lone_objects(512, seed=2_000_000)
    right = judge.shapes(render(held_out, NANO_SIZE)[0]) == held_out.shape[:, 0]
    print(f"names {int(right.sum())} of {len(right)} held-out scenes rightly")
    save_file({name: tensor.half().contiguous() for name, tensor in judge.state_dict().items()}, options.out)
