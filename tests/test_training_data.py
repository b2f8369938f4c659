"""Mixtures of data sets and pictures of several shapes: shares, epochs, processes, resuming, nothing stretched."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import stats

from mforce.mforce_core import load_autoencoder
from mforce.mforce_core.model.config import ConfigError
from mforce.training.config_file import PRESETS, read_train_config
from mforce.training.data.buckets import bucket_canvases, nearest_canvas
from mforce.training.data.encode import EncodeSettings, ShardEncoder
from mforce.training.data.encoded import EncodedSource
from mforce.training.data.order import Order
from mforce.training.data.shards import find_shards
from mforce.training.log import read_log
from mforce.training.processes import join
from mforce.training.train import Trainer, train
from tiny_training import arguments, config, write_base, write_data, write_latents, write_words
from two_processes import train_on_two

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

ROOT = Path(__file__).parent.parent
NANO = ROOT / "models" / "nano"


# Order


def test_one_set_of_one_shape_is_a_permutation_per_epoch() -> None:
    order = Order([[11]], [3.0], batch_size=4, seed=5)
    for first in (0, 1023, 1500 * 11):  # blocks of steps are drawn together
        picks = [pick for step in range(first, first + 22) for pick in order.picks(step)]
        epochs = {pick.epoch: [other.sample for other in picks if other.epoch == pick.epoch] for pick in picks}
        whole = [tuple(epoch) for epoch in epochs.values() if len(epoch) == 11]
        assert len(set(whole)) == len(whole) >= 7
        assert all(sorted(epoch) == list(range(11)) for epoch in whole)


def test_rows_of_a_mixture_follow_its_weights_and_no_share_is_off_by_more_than_a_row() -> None:
    weights = [5.0, 3.0, 1.0]
    order, steps, rows = Order([[40], [7], [900]], weights, batch_size=10, seed=0), 3000, 10
    counts = np.array([[sum(p.part == part for p in order.picks(step)) for part in range(3)] for step in range(steps)])
    wanted = rows * np.array(weights) / sum(weights)
    assert (counts.sum(1) == rows).all()
    assert (np.abs(counts - wanted) < 1 + 1e-9).all()
    # Against rows drawn one by one: the mean of so many steps is within four of their standard errors.
    error = np.sqrt(wanted * (1 - wanted / rows) / steps)
    assert (np.abs(counts.mean(0) - wanted) < 4 * error).all()


def test_every_set_and_shape_deals_all_of_its_samples_before_one_comes_again() -> None:
    table = [[6, 9], [12, 3]]
    order = Order(table, [1.0, 2.0], batch_size=4, seed=1)
    dealt: dict[tuple[int, int], list[int]] = {}
    for step in range(300):
        picks = order.picks(step)
        assert len({pick.shape for pick in picks}) == 1
        for part in range(2):  # in the order in which they were dealt: rows of a batch are mixed
            own = sorted(pick.sample for pick in picks if pick.part == part)
            dealt.setdefault((part, picks[0].shape), []).extend(own)
    for (part, shape), indices in dealt.items():
        seen = Counter(indices)
        assert set(seen) == set(range(table[part][shape]))
        assert max(seen.values()) - min(seen.values()) <= 1


def test_shapes_come_as_often_as_the_weighted_sets_hold_them() -> None:
    table, weights, steps = [[30, 10], [5, 45]], [3.0, 1.0], 4000
    order = Order(table, weights, batch_size=2, seed=3)
    shapes = Counter(order.picks(step)[0].shape for step in range(steps))
    wide = 0.75 * 0.25 + 0.25 * 0.9
    assert stats.binomtest(shapes[1], steps, wide).pvalue > 1e-4


def test_a_step_is_the_same_however_it_is_reached() -> None:
    def make() -> Order:
        return Order([[6, 9], [12, 3]], [1.0, 2.0], batch_size=4, seed=1)

    whole = make()
    forward = [whole.picks(step) for step in range(2100)]  # beyond two blocks of draws
    for step in (2099, 1024, 1023, 0):
        assert make().picks(step) == forward[step]
        assert whole.picks(step) == forward[step]
    assert Order([[6, 9], [12, 3]], [1.0, 2.0], batch_size=4, seed=2).picks(5) != forward[5]


# Mixtures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets, one without depth and one in buckets, and the text encoder."""
    root = tmp_path_factory.mktemp("sets")
    write_latents(root / "rooms", count=9, seed=1)
    write_latents(root / "photos", count=5, depth=False, seed=2)
    for shape in ((2, 2), (1, 2)):
        name = "latents-0.{}x{}.safetensors".format(*shape)
        write_latents(root / "streets", count=4, shape=shape, file=name, facts={"aspects": True}, seed=3)
    write_words(root)
    return root


@pytest.fixture(scope="module")
def base(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("t2i", root / "rooms", folder, text_encoder=root))


MIXTURE = '[{latents="rooms", weight=2}, {latents="photos", weight=1}, {latents="streets", weight=1.5}]'


def mixed(root: Path, **more: object) -> dict[str, object]:
    return {"text_encoder": root, "data.latents": root, "data.mixture": MIXTURE} | more


def test_a_batch_of_a_mixture_holds_the_rows_of_its_sets(root: Path) -> None:
    folders = [root / name for name in ("rooms", "photos", "streets")]
    source = EncodedSource(folders, root, batch_size=6, seed=4, weights=[2, 1, 1.5])
    assert len(source) == 22
    assert source.latent_shape == (8, 2, 2)
    counts = (9, 5, 4)
    singles = [EncodedSource([at], root, batch_size=n, seed=0) for at, n in zip(folders, counts, strict=True)]
    known = {
        part: torch.cat([single.batch(step, slice(0, 4)).rgb.flatten(1)[:, :1] for step in range(12)])
        for part, single in enumerate(singles)
    }
    shapes, parts = set(), Counter()
    for step in range(40):
        batch = source.batch(step, slice(0, 6))
        shapes.add(tuple(batch.rgb.shape[2:]))
        assert batch.depth is not None
        assert batch.depth.shape[1:] == (4 * batch.rgb.shape[2], 4 * batch.rgb.shape[3])
        for rgb, depth in zip(batch.rgb, batch.depth, strict=True):
            (part,) = [part for part, values in known.items() if (values == rgb.flatten()[0]).any()]
            parts[part] += 1
            assert bool(depth.any()) == (part != 1)  # what has no depth comes with empty maps
    assert shapes == {(2, 2), (1, 2)}
    assert parts[0] > parts[1] > 0
    assert parts[2] > parts[1]


def test_sets_that_do_not_go_together_are_refused(root: Path, tmp_path: Path) -> None:
    write_latents(tmp_path / "other", facts={"text_encoder": "ab"})
    write_latents(tmp_path / "another", facts={"text_encoder": "cd"})
    with pytest.raises(ValueError, match="encoded with another text encoder"):
        EncodedSource([tmp_path / "other", tmp_path / "another"], root, batch_size=1, seed=0)
    write_latents(tmp_path / "one_vae", facts={"vae": "ab"})
    write_latents(tmp_path / "other_vae", facts={"vae": "cd"})
    with pytest.raises(ValueError, match="different autoencoders"):
        EncodedSource([tmp_path / "one_vae", root / "rooms", tmp_path / "other_vae"], root, batch_size=1, seed=0)
    write_latents(tmp_path / "one_vae", facts={"vae": "cd"}, file="latents-1.safetensors")
    with pytest.raises(ValueError, match="one autoencoder"):
        EncodedSource([tmp_path / "one_vae"], root, batch_size=1, seed=0)
    more = mixed(root) | {"data.mixture": '[{latents="nowhere", weight=1}]'}
    with pytest.raises(ConfigError, match=r"data\.mixture: .*nowhere holds no latents"):
        train(config("t2i", root, tmp_path, **more))
    (tmp_path / "section.toml").write_text('[[data.mixture]]\nlatents = "rooms"\nweight = 1\n')
    for wrong, message in (
        (tmp_path / "section.toml", r"section\.toml has no list \[\[mixture\]\]"),
        ("papre", r"papre is neither a TOML file nor one of paper"),
        ('[{latents="rooms", weight=1}, {latents="rooms", weight=2}]', "names rooms twice"),
        ('[{latents="rooms", weight=0}]', r"data\.mixture\.0\.weight"),
        ('[{latents="rooms", wieght=1}]', r"no such key"),
    ):
        with pytest.raises(ConfigError, match=message):
            config("t2i", root, tmp_path, **{"data.mixture": wrong})


def measured(trainer: Trainer, steps: int) -> list[list[float]]:
    """Losses and the norm of the gradient of some steps."""
    found = []
    for _ in range(steps):
        trainer.train_step()
        measures = trainer.measures()
        found.append([measures[name] for name in ("rgb", "depth", "distillation", "gradient_norm")])
    return found


def test_training_on_a_mixture_goes_on_to_the_last_bit(root: Path, base: Path, tmp_path: Path) -> None:
    more = mixed(root, base=base, log_every=1, save_every=3, steps=7)
    first = Trainer(config("mf", root, tmp_path / "a", **more), join("cpu"))
    measured(first, 3)
    first.save()
    wanted = measured(first, 4)
    first.close()
    second = Trainer(config("mf", root, tmp_path / "a", **more), join("cpu"))
    assert second.step == 3
    assert measured(second, 4) == wanted
    second.close()


def test_two_processes_train_on_a_mixture_like_one(root: Path, base: Path, tmp_path: Path) -> None:
    more = mixed(root, base=base, log_every=1, steps=6)
    train(config("mf", root, tmp_path / "one", **more))
    train_on_two("_small-mf", arguments("mf", root, tmp_path / "two", **more), tmp_path)
    one, two = ([e for e in read_log(tmp_path / name) if "rgb" in e] for name in ("one", "two"))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["rgb"] == pytest.approx(theirs["rgb"], rel=1e-3)
        assert ours["depth"] == pytest.approx(theirs["depth"], rel=1e-3)


def test_another_mixture_is_another_run(root: Path, tmp_path: Path) -> None:
    train(config("t2i", root, tmp_path, **mixed(root, steps=2)))
    other = MIXTURE.replace("weight=2", "weight=3")
    with pytest.raises(ConfigError, match="another data"):
        train(config("t2i", root, tmp_path, **mixed(root, steps=2) | {"data.mixture": other}))


def test_the_papers_mixture_is_named_and_weighted_by_the_frames_in_the_docs(tmp_path: Path) -> None:
    more = ["data.mixture=paper", "data.latents=data/paper"]
    found = read_train_config(Path("klein-9b"), more).data
    assert len(found.mixture) == 12
    assert next(iter(found.parts())) == Path("data/paper/argoverse2")
    table = (ROOT / "docs" / "data-sets.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    frames = {row[1].strip(" `"): int(row[3].replace(",", "")) for row in rows}
    assert sum(frames.values()) == 16_966_879  # the paper's 17 M
    assert {str(part.latents): part.weight for part in found.mixture} == {
        name: round((count / 1000) ** 0.5, 1) for name, count in frames.items()
    }
    own = tmp_path / "mine.toml"
    own.write_text('[[mixture]]\nlatents = "a"\nweight = 1\n')
    named = read_train_config(Path("klein-4b"), [f"data.mixture={own}"]).data
    assert named.parts() == {Path("data/encoded/a"): 1.0}
    assert (PRESETS / "mixtures" / "paper.toml").exists()


# Buckets


def test_canvases_of_512() -> None:
    found = bucket_canvases(512, 16)
    assert found == [
        (256, 512), (320, 512), (384, 512), (448, 512), (512, 512), (512, 448), (512, 384), (512, 320), (512, 256)
    ]  # fmt: skip
    assert nearest_canvas((480, 640), found) == (384, 512)
    assert nearest_canvas((1920, 1080), found) == (512, 320)  # 0.5625 is nearer to 0.625 than to 0.5 by ratio
    assert nearest_canvas((100, 1000), found) == (256, 512)
    with pytest.raises(ValueError, match="off the grid"):
        bucket_canvases(500, 16)


SIZES = [(96, 192), (120, 160), (128, 128), (160, 120), (192, 100), (64, 200)]


def draw_circle(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A white disk on black in the middle of a picture (height, width), and depth that is nearer on the disk."""
    height, width = size
    picture = Image.new("RGB", (width * 4, height * 4))
    radius = 0.3 * min(size) * 4
    center = width * 2, height * 2
    box = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
    ImageDraw.Draw(picture).ellipse(box, fill="white")
    image = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    return image, np.where(image[..., 0] > 127, 1.0, 4.0).astype(np.float32)


@pytest.fixture(scope="module")
def circles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("circles")
    for number in range(24):
        image, depth = draw_circle(SIZES[number % len(SIZES)])
        Image.fromarray(image).save(folder / f"{number:02}.png")
        np.save(folder / f"{number:02}.depth.npy", depth)
        (folder / f"{number:02}.txt").write_text("a white circle")
    return folder


@pytest.fixture(scope="module")
def bucketed(circles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bucketed")
    settings = EncodeSettings(str(NANO / "autoencoder.safetensors"), str(NANO), (128, 128), aspects=True)
    encoder = ShardEncoder(settings, out)
    (shard,) = find_shards([str(circles)])
    assert encoder(shard).rows == 24
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert encoder(shard).rows == 24  # kept
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    one = next(out.glob("latents-*.64x128.safetensors"))
    one.unlink()  # a shard that was interrupted is made again
    assert encoder(shard).rows == 24
    assert one.exists()
    with pytest.raises(ValueError, match="made with another"):
        ShardEncoder(EncodeSettings(settings.vae, settings.text_encoder, (128, 128), aspects=True, seed=1), out)(shard)
    return out


def roundness(mask: np.ndarray) -> float:
    """Height over width of what is drawn."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return (rows[-1] - rows[0] + 1) / (columns[-1] - columns[0] + 1)


def test_no_picture_is_stretched(bucketed: Path) -> None:
    """Circles are circles in depth and, decoded, in the picture, on canvases of every shape."""
    source = EncodedSource([bucketed], NANO, batch_size=4, seed=0)
    autoencoder = load_autoencoder(NANO / "autoencoder.safetensors")
    seen = set()
    for step in range(40):
        batch = source.batch(step, slice(0, 4))
        shape = tuple(batch.rgb.shape[2:])
        assert batch.depth is not None
        assert batch.depth.shape[1:] == (16 * shape[0], 16 * shape[1])
        if shape in seen:
            continue
        seen.add(shape)
        with torch.no_grad():
            pictures = autoencoder.decode(batch.rgb).mean(1).numpy()
        for depth, picture in zip(batch.depth.numpy(), pictures, strict=True):
            assert roundness(depth == 1) == pytest.approx(1, abs=0.06)  # two pixels of a disk of 38 or more
            assert roundness(picture > 0) == pytest.approx(1, abs=0.06)
    assert seen == {(4, 8), (6, 8), (8, 8), (8, 6), (8, 4)}


def test_a_stretched_picture_would_be_seen() -> None:
    _, depth = draw_circle((120, 160))
    stretched = np.asarray(Image.fromarray(depth).resize((128, 128), Image.Resampling.NEAREST))
    assert abs(roundness(stretched == 1) - 1) > 0.2


def test_a_run_in_buckets_trains_resumes_and_exports(bucketed: Path, tmp_path: Path) -> None:
    small = {"architecture.in_channels": 128, "architecture.context_in_dim": 128, "text_encoder": NANO}
    small |= {"steps": 6, "log_every": 1, "save_every": 3}
    train(config("t2i", bucketed, tmp_path / "t2i", **small))
    more = small | {"base": tmp_path / "t2i" / "model", "architecture.depth_channels": 256}
    train(config("mf", bucketed, tmp_path / "whole", **more))
    shapes = {
        tuple(EncodedSource([bucketed], NANO, batch_size=4, seed=1).batch(step, slice(0, 1)).rgb.shape)
        for step in range(6)
    }
    assert len(shapes) > 1
    parts = tmp_path / "parts"
    trainer = Trainer(config("mf", bucketed, parts, **more), join("cpu"))
    for _ in range(3):
        trainer.train_step()
    trainer.save()
    trainer.close()
    train(config("mf", bucketed, parts, **more))
    whole = [entry["rgb"] for entry in read_log(tmp_path / "whole") if "rgb" in entry]
    assert [entry["rgb"] for entry in read_log(parts) if "rgb" in entry] == whole[3:]
    saved = json.loads((parts / "model" / "config.json").read_text())
    assert sorted(saved["image_size"])[1] == 128


def test_a_model_names_the_size_of_its_pictures(tmp_path: Path) -> None:
    write_words(tmp_path)
    write_latents(tmp_path, shape=(2, 3))
    train(config("t2i", tmp_path, tmp_path / "run", steps=1))
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["image_size"] == [48, 32]


def test_sizes_that_were_not_encoded_in_buckets_are_refused(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_latents(tmp_path, shape=(1, 2), file="latents-1.safetensors")
    with pytest.raises(ValueError, match="encode them at one size"):
        EncodedSource([tmp_path], tmp_path, batch_size=1, seed=0)


def test_buckets_of_two_sizes_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_words(tmp_path)
    for side in (32, 64):
        facts = {"aspects": True, "canvas": [side, side]}
        shape = (side // 16, side // 16)
        write_latents(tmp_path, shape=shape, file=f"latents-0.{side}x{side}.safetensors", facts=facts)
    with pytest.raises(ValueError, match="encode them at one size"):
        EncodedSource([tmp_path], tmp_path, batch_size=1, seed=0)
