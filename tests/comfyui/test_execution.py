"""Graphs in a running ComfyUI: stock samplers on all tasks, LoRA, masks, queue and cache, every node of the pack."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import Generator, randn

from mforce.mforce_core.weights.header import read_header

from .graph import EXECUTED, Graph
from .host import PACK

SCENE = "yellow_sphere"
EXAMPLES = PACK / "nodes" / "examples"
SAMPLERS = ["euler", "heun", "dpmpp_2m", "res_multistep", "uni_pc"]


class Scene:
    """The nodes that most graphs start with."""

    def __init__(self, object_info, text="a yellow sphere on a wooden floor") -> None:
        self.graph = Graph(object_info)
        self.loaded = self.graph.add("MFLoadModel")
        self.example = self.graph.add("MFExampleScene", scene=SCENE)
        self.model, self.vae = self.loaded[0], self.loaded[2]
        self.positive = self.graph.add("CLIPTextEncode", clip=self.loaded[1], text=text)[0]
        self.negative = self.graph.add("CLIPTextEncode", clip=self.loaded[1], text="")[0]

    def add(self, kind, **inputs):
        return self.graph.add(kind, **inputs)

    def start(self, task):
        """The joint latent of a task, 128 x 128."""
        if task == "joint":
            return self.add("MFEmptyLatent")[0]
        if task == "i2d":
            return self.depth_latent(self.example[0])
        return self.add("MFDepthToImageLatent", depth=self.add("MFEncodeDepth", depth=self.example[1])[0])[0]

    def depth_latent(self, image):
        return self.add("MFImageToDepthLatent", image=image, vae=self.vae)[0]

    def ksampler(self, latent, model=None, **inputs):
        options = {"seed": 4, "steps": 8, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple"}
        return self.add(
            "KSampler",
            model=self.model if model is None else model,
            positive=self.positive,
            negative=self.negative,
            latent_image=latent,
            **{**options, **inputs},
        )

    def decode(self, rgb):
        return self.add("VAEDecode", samples=rgb, vae=self.vae)

    def save_image(self, image):
        return self.add("SaveImage", images=image, filename_prefix="test")

    def save_depth(self, depth, **inputs):
        return self.add("MFSaveDepth", depth=depth, **{"format": "npy", **inputs})


def exact_depth():
    return np.asarray(Image.open(EXAMPLES / f"{SCENE}_depth.png"), dtype=np.float64)


def abs_rel(depth, reference):
    """AbsRel after the median scaling that relative depth needs."""
    known = np.isfinite(depth) & (reference > 0)
    depth, reference = depth[known], reference[known]
    return float(np.mean(np.abs(depth * np.median(reference / depth) - reference) / reference))


def saved_depth(outcome, node):
    (path,) = outcome.files(node, "depth_files")
    return np.load(path)


def pixels(outcome, node):
    return np.asarray(outcome.image(node).convert("RGB"), dtype=np.float64)


def hue_share(picture, low, high):
    """Share of saturated pixels whose hue (0 to 255) lies between low and high."""
    hue, saturation, _ = np.moveaxis(np.asarray(Image.fromarray(picture.astype(np.uint8)).convert("HSV")), -1, 0)
    vivid = saturation > 120
    return ((hue >= low) & (hue <= high) & vivid).sum() / max(1, vivid.sum())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ksampler_makes_depth_of_an_image(server, object_info, sampler):
    scene = Scene(object_info)
    split = scene.add("MFSplitLatent", latent=scene.ksampler(scene.start("i2d"), sampler_name=sampler, cfg=1.0)[0])
    depth = scene.add("MFDepthDetokenize", depth=split[1])
    saved = scene.save_depth(depth[0])
    assert abs_rel(saved_depth(scene.graph.run(server), saved), exact_depth()) < 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ksampler_makes_an_image_of_depth(server, object_info, sampler):
    scene = Scene(object_info)
    split = scene.add("MFSplitLatent", latent=scene.ksampler(scene.start("d2i"), sampler_name=sampler)[0])
    image = scene.decode(split[0])
    again = scene.depth_latent(image[0])
    back = scene.add("MFSplitLatent", latent=scene.ksampler(again, cfg=1.0)[0])
    saved = scene.save_depth(scene.add("MFDepthDetokenize", depth=back[1])[0])
    assert abs_rel(saved_depth(scene.graph.run(server), saved), exact_depth()) < 0.2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ksampler_makes_both_from_text(server, object_info, sampler):
    scene = Scene(object_info, "a green cube on a wooden floor")
    tilted = scene.add("MFTilt", model=scene.model, tilt=3.0)
    split = scene.add("MFSplitLatent", latent=scene.ksampler(scene.start("joint"), tilted[0], sampler_name=sampler)[0])
    image = scene.decode(split[0])
    picture = scene.save_image(image[0])
    depth = scene.save_depth(scene.add("MFDepthDetokenize", depth=split[1])[0])
    again = scene.depth_latent(image[0])
    back = scene.add("MFSplitLatent", latent=scene.ksampler(again, cfg=1.0)[0])
    estimated = scene.save_depth(scene.add("MFDepthDetokenize", depth=back[1])[0])
    outcome = scene.graph.run(server)
    assert hue_share(pixels(outcome, picture), 60, 110) > 0.3
    assert abs_rel(saved_depth(outcome, depth), saved_depth(outcome, estimated)) < 0.2


def test_lora_acts_while_it_is_on(server, object_info):
    shapes = read_header(PACK / "models" / "nano").shapes
    noise = Generator().manual_seed(0)
    lora = {}
    for name in ("single_blocks.0.linear1", "double_blocks.0.img_attn.qkv"):
        rows, columns = shapes[f"{name}.weight"]
        lora[f"diffusion_model.{name}.lora_A.weight"] = randn(8, columns, generator=noise) / 10
        lora[f"diffusion_model.{name}.lora_B.weight"] = randn(rows, 8, generator=noise) / 10
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(lora, folder / "style.safetensors")

    def picture(strength):
        scene = Scene(object_info)
        model = scene.model
        if strength is not None:
            loader = scene.add(
                "LoraLoaderModelOnly", model=model, lora_name="style.safetensors", strength_model=strength
            )
            model = loader[0]
        sampled = scene.ksampler(scene.start("joint"), model, steps=4)
        split = scene.add("MFSplitLatent", latent=sampled[0])
        saved = scene.save_image(scene.decode(split[0])[0])
        return pixels(scene.graph.run(server), saved)

    without, off, on, again = picture(None), picture(0.0), picture(1.0), picture(None)
    assert np.array_equal(without, off)
    assert np.array_equal(without, again)
    assert np.abs(on - without).mean() > 1


def test_image_to_image_stays_closer_with_less_noise(server, object_info):
    source = np.asarray(Image.open(EXAMPLES / f"{SCENE}.png").convert("RGB"), dtype=np.float64)

    def distance(denoise):
        scene = Scene(object_info)
        latent = scene.add("VAEEncode", pixels=scene.example[0], vae=scene.vae)
        merged = scene.add("MFMergeLatent", rgb=latent[0])
        conds = {"positive": scene.positive, "negative": scene.negative}
        sampled = scene.add(
            "MFSampler", model=scene.model, **conds, latent=merged[0], steps=6, refine_depth=True, denoise=denoise
        )
        saved = scene.save_image(scene.decode(sampled[0])[0])
        return np.abs(pixels(scene.graph.run(server), saved) - source).mean()

    distances = [distance(part) for part in (0.2, 0.6, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 20


def test_inpainting_changes_the_masked_part_of_image_and_depth(server, object_info):
    scene = Scene(object_info, "a red cube on a wooden floor")
    mask = scene.add("SolidMask", value=0.0, width=128, height=128)
    patch = scene.add("SolidMask", value=1.0, width=64, height=64)
    corner = scene.add("MaskComposite", destination=mask[0], source=patch[0], x=0, y=64, operation="add")
    rgb = scene.add("VAEEncode", pixels=scene.example[0], vae=scene.vae)
    masked = scene.add("SetLatentNoiseMask", samples=rgb[0], mask=corner[0])
    depth = scene.add("MFEncodeDepth", depth=scene.example[1])
    merged = scene.add("MFMergeLatent", rgb=masked[0], depth=depth[0])
    split = scene.add("MFSplitLatent", latent=scene.ksampler(merged[0])[0])
    before, after = (scene.save_image(scene.decode(latent)[0]) for latent in (rgb[0], split[0]))
    given, made = (scene.save_depth(scene.add("MFDepthDetokenize", depth=latent)[0]) for latent in (depth[0], split[1]))
    outcome = scene.graph.run(server)
    outside = np.ones((128, 128), dtype=bool)
    outside[64:, :64] = False
    change = saved_depth(outcome, made) / saved_depth(outcome, given) - 1
    assert np.nanmax(np.abs(change[outside])) < 1e-5
    assert np.nanmean(np.abs(change[~outside])) > 1e-3
    picture_change = np.abs(pixels(outcome, after) - pixels(outcome, before)).max(-1)
    # The autoencoder's decoder looks a little past the border of the mask.
    assert picture_change[:40].max() <= 1
    assert picture_change[:, 96:].max() <= 1
    assert picture_change[64:, :64].mean() > 5


def test_a_picture_of_a_repeated_latent_is_made_again_alone(server, object_info):
    scene = Scene(object_info)
    del scene.graph.prompt[scene.example.name]
    batch = scene.add("MFRepeatLatent", latent=scene.start("joint"), amount=3)[0]
    last = scene.add("MFLatentFromBatch", latent=batch, start=-1)[0]
    given = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "steps": 4}
    sampled = [scene.add("MFSampler", **given, latent=latent) for latent in (batch, last)]
    whole, alone = (scene.save_image(scene.decode(one[0])[0]) for one in sampled)
    outcome = scene.graph.run(server)
    first, _, third = (np.asarray(Image.open(path), dtype=np.float64) for path in outcome.files(whole))
    assert np.abs(pixels(outcome, alone) - third).max() <= 1
    assert np.abs(first - third).max() > 50


def test_depth_completion_agrees_with_the_points(server, object_info):
    reference = exact_depth() / 65535 * 12
    points = np.where(np.random.default_rng(0).random(reference.shape) < 0.03, reference, 0).astype(np.float32)
    np.save(server.base / "input" / "points.npy", points)

    def complete(guided):
        scene = Scene(object_info)
        loaded = scene.add("MFLoadDepth", file="points.npy")
        measured = scene.add("MFEncodeDepth", depth=loaded[0])
        latent, model = scene.start("i2d"), scene.model
        if guided:
            completion = scene.add("MFDepthCompletion", model=model, latent=latent, depth=measured[0])
            model, latent = completion[0], completion[1]
        split = scene.add("MFSplitLatent", latent=scene.ksampler(latent, model, cfg=1.0)[0])
        saved = scene.save_depth(scene.add("MFDepthDetokenize", depth=split[1])[0])
        return saved_depth(scene.graph.run(server), saved)

    plain, completed = complete(False), complete(True)
    known, unknown = points > 0, (points == 0) & (reference > 0)
    assert np.max(np.abs(completed[known] / points[known] - 1)) < 1e-3
    in_meters = np.mean(np.abs(completed - reference)[unknown] / reference[unknown])
    # Points that did not reach their surroundings would leave the picture's own depth, at best in the right unit: 1.0.
    assert in_meters < 0.9 * abs_rel(np.where(unknown, plain, np.nan), reference)


def test_depth_files_views_and_clouds(server, object_info):
    scene = Scene(object_info)
    latent = scene.add(
        "MFImageToDepthLatent", image=scene.example[0], vae=scene.vae, width=128, height=112, fit="letterbox"
    )
    sampled = scene.ksampler(latent[0], cfg=1.0)
    depth = scene.add("MFDepthDetokenize", depth=sampled[0], image=latent[1], fov_degrees=60.0)
    restored = scene.add("MFRestoreSize", content=depth[0], latent=sampled[0], image=scene.example[0])
    colors = scene.add("MFDepthToImage", depth=restored[0], colors="viridis")
    colored = scene.save_image(colors[0])
    png = scene.save_depth(restored[0], format="png (16-bit)")
    cloud = scene.add("MFToPointCloud", geometry=restored[0])
    scene.add("PreviewPointCloud", model_3d=cloud[0], viewport_state="")
    mesh = scene.add("MoGePointMapToMesh", moge_geometry=restored[0])
    scene.add("SaveGLB", mesh=mesh[0], filename_prefix="mesh")
    fov = scene.add("MoGeGeometryToFOV", moge_geometry=restored[0])
    shown = scene.add("PreviewAny", source=fov[0])
    outcome = scene.graph.run(server)
    assert outcome.image(colored).size == (128, 128)
    (path,) = outcome.files(png, "depth_files")
    assert Image.open(path).size == (128, 128)
    assert float(outcome.entry["outputs"][shown.name]["text"][0]) > 0
    assert abs_rel(np.asarray(Image.open(path), dtype=np.float64), exact_depth()) < 0.15
    assert list((server.base / "output").glob("mesh*.glb"))


def test_views_and_merged_clouds(server, object_info):
    scene = Scene(object_info)
    encoded = scene.add("MFEncodeDepth", depth=scene.example[1])
    raw = scene.add("MFDepthDetokenize", depth=encoded[0], image=scene.example[0])
    still = scene.add("MFRenderView", geometry=raw[0], orbit_right=0.0)
    turned = scene.add("MFRenderView", geometry=raw[0], orbit_right=10.0)
    clip = scene.add("MFRenderView", geometry=raw[0], path="swing", frames=6)
    same, seen = (scene.save_image(view[0]) for view in (still, turned))
    holes = scene.save_image(scene.add("MaskToImage", mask=turned[1])[0])
    video = scene.add("CreateVideo", images=clip[0], fps=12.0)
    saved = scene.add("SaveVideo", video=video[0], format="mp4", **{"format.codec": "auto"})
    clouds = [scene.add("MFToPointCloud", geometry=view[2], density=1, centre=False) for view in (still, turned)]
    inputs = {f"point_clouds.point_cloud{index}": cloud[0] for index, cloud in enumerate(clouds)}
    merged = scene.add("MFMergePointClouds", **inputs)
    scene.add("SavePointCloud", model_3d=merged[0], viewport_state="", filename_prefix="merged")
    outcome = scene.graph.run(server)
    source = np.asarray(Image.open(EXAMPLES / f"{SCENE}.png").convert("RGB"), dtype=np.float64)
    assert np.abs(pixels(outcome, same) - source).max() <= 1
    assert np.abs(pixels(outcome, seen) - source).mean() > 3
    assert 0 < (pixels(outcome, holes) > 127).mean() < 0.4
    assert outcome.files(saved)[0].stat().st_size > 1000
    assert list((server.base / "output").rglob("merged*.ply"))


def test_what_a_moved_camera_sees_is_filled_and_joins_the_cloud(server, object_info):
    scene = Scene(object_info)
    geometry = scene.add("MFDepthToGeometry", depth=scene.example[1], image=scene.example[0])[0]
    view = scene.add("MFRenderView", geometry=geometry, orbit_right=0.0, move_right=0.1)
    filling = {"model": scene.model, "positive": scene.negative, "negative": scene.negative, "vae": scene.vae}
    filling |= {"steps": 2, "depth_steps": 1}
    extended = scene.add("MFExtendView", **filling, geometry=view[2], holes=view[1])
    walked = scene.add("MFExplore", **filling, geometry=geometry, route="to the right", views=1, frames=2)
    rendered, filled, clip = (scene.save_image(node[0]) for node in (view, extended, walked))
    clouds = {"point_clouds.point_cloud0": extended[2], "point_clouds.point_cloud1": walked[2]}
    merged = scene.add("MFMergePointClouds", **clouds)
    scene.add("SavePointCloud", model_3d=merged[0], viewport_state="", filename_prefix="explored")
    outcome = scene.graph.run(server)
    changed = np.abs(pixels(outcome, filled) - pixels(outcome, rendered)).max(-1) > 2
    assert 0.01 < changed.mean() < 0.3
    assert len(outcome.files(clip)) == 2
    assert list((server.base / "output").rglob("explored*.ply"))


def test_depth_of_a_clip_and_at_the_size_of_its_picture(server, object_info):
    scene = Scene(object_info, text="")
    clip = scene.add("ImageBatch", image1=scene.example[0], image2=scene.add("ImageInvert", image=scene.example[0])[0])
    inputs = {"model": scene.model, "positive": scene.positive, "vae": scene.vae, "steps": 2}
    steady = scene.add("MFVideoDepth", **inputs, clip=clip[0])
    maps = scene.add("MFDepthDetokenize", depth=steady[0])
    first = scene.add("ImageFromBatch", image=maps[1], batch_index=0, length=1)
    small = scene.add("ImageScale", image=scene.example[1], width=64, height=64, upscale_method="area", crop="disabled")
    fine = scene.add("MFDepthUpscale", **inputs, image=scene.example[0], depth=small[0], tile=128)
    video = scene.add("CreateVideo", images=clip[0], fps=8.0)
    deep = scene.add("MFVideoToDepthVideo", **inputs, video=video[0])
    scene.add("SaveVideo", video=deep[0], filename_prefix="deep", format="mp4", codec="h264")
    saved = [scene.save_depth(maps[0]), scene.save_depth(fine[0]), scene.save_image(first[0])]
    outcome = scene.graph.run(server)
    assert list((server.base / "output").glob("deep*.mp4"))
    frames = [np.load(path) for path in outcome.files(saved[0], "depth_files")]
    assert abs_rel(frames[0], exact_depth()) < 0.1
    assert saved_depth(outcome, saved[1]).shape == exact_depth().shape


def test_queue_and_cache(server, object_info):
    def prompt(text):
        scene = Scene(object_info, text)
        del scene.graph.prompt[scene.example.name]
        split = scene.add("MFSplitLatent", latent=scene.ksampler(scene.start("joint"), steps=2)[0])
        saved = scene.save_image(scene.decode(split[0])[0])
        return scene, saved

    first, second = prompt("a red cube on a tiled floor"), prompt("a blue cone on a tiled floor")
    queued = [server.queue(scene.graph.prompt) for scene, _ in (first, second)]
    assert all(server.wait(name)["status"]["status_str"] == "success" for name in queued)

    # ComfyUI keeps the results of the last prompt.
    graph = second[0].graph
    assert graph.run(server).cached == set(graph.prompt)
    sampler = next(name for name, node in graph.prompt.items() if node["class_type"] == "KSampler")
    graph.prompt[sampler]["inputs"]["seed"] = 99
    upstream = {name for name, node in graph.prompt.items() if node["class_type"] in ("MFLoadModel", "MFEmptyLatent")}
    cached = graph.run(server).cached
    assert upstream <= cached
    assert sampler not in cached


def test_other_packs_with_folders_of_the_same_names_work_beside_this_one(object_info):
    assert "Neighbor" in object_info
    assert "MFSampler" in object_info


def test_a_path_gives_one_picture_through_core_and_through_mf_sampler(server, object_info):
    scene = Scene(object_info)
    latent = scene.start("joint")
    path = scene.add("MFPath", steps=6)
    guider = scene.add("CFGGuider", model=scene.model, positive=scene.positive, negative=scene.negative, cfg=4.0)
    noise = scene.add("RandomNoise", noise_seed=4)
    advanced = scene.add(
        "SamplerCustomAdvanced",
        noise=noise[0],
        guider=guider[0],
        sampler=path[1],
        sigmas=path[2],
        latent_image=latent,
    )
    common = {"positive": scene.positive, "negative": scene.negative, "latent": latent, "seed": 4}
    with_path = scene.add("MFSampler", model=scene.model, path=path[0], **common)
    without = scene.add("MFSampler", model=scene.model, steps=6, **common)
    rgb = [scene.add("MFSplitLatent", latent=advanced[0])[0], with_path[0], without[0]]
    saved = [scene.save_image(scene.decode(latent)[0]) for latent in rgb]
    outcome = scene.graph.run(server)
    pictures = [pixels(outcome, node) for node in saved]
    assert np.array_equal(pictures[0], pictures[1])
    # The default path is the release's, whose depth steps are rounded otherwise.
    assert np.abs(pictures[1] - pictures[2]).max() <= 2
    assert np.ptp(pictures[0]) > 100


def test_a_depth_map_goes_out_in_every_form(server, object_info):
    scene = Scene(object_info)
    picture = scene.example[0]
    maps = scene.add("MFDepthToGeometry", depth=scene.example[1], image=picture)
    twice = scene.add("MFLatentFromBatch", latent=scene.add("MFRepeatLatent", latent=scene.start("d2i"), amount=2)[0])
    depth = scene.add("MFDepthDetokenize", depth=scene.add("MFSplitLatent", latent=twice[0])[1])
    merged = scene.add("MFDepthEnsemble", depth=depth[0])
    sky = scene.add("MFSky", geometry=maps[0])
    pictures = {
        "source": picture,
        "focus": scene.add("MFDepthOfField", geometry=sky[0], strength=0.1)[0],
        "fog": scene.add("MFFog", geometry=sky[0])[0],
        "stereo": scene.add("MFStereoPair", geometry=sky[0], baseline=0.1)[0],
        "normals": scene.add("MFDepthPasses", geometry=sky[0])[0],
        "spread": merged[1],
    }
    saved = {name: scene.save_image(image) for name, image in pictures.items()}
    splats = scene.add("MFToSplats", geometry=sky[0])
    turned = scene.save_image(scene.add("RenderSplat", splat=splats[0])[0])
    layers = scene.add("MFSaveLayers", geometry=sky[0])
    camera = scene.add("MFSaveCamera", geometry=sky[0])
    outcome = scene.graph.run(server)
    found = {name: pixels(outcome, node) for name, node in saved.items()}
    height, width = found["source"].shape[:2]
    assert found["stereo"].shape == (height, 2 * width, 3)
    for name in ("focus", "fog", "normals"):
        assert found[name].shape == found["source"].shape
        assert np.abs(found[name] - found["source"]).mean() > 1, name
    assert np.ptp(found["spread"], axis=(0, 1)).max() == 0  # of two equal maps
    assert np.ptp(pixels(outcome, turned)) > 50
    assert [path.suffix for path in outcome.files(layers, "depth_files")] == [".exr"]
    assert [path.is_file() for path in outcome.files(camera, "files")] == [True]


def test_every_node_of_the_pack_was_executed(request, object_info):
    here = {name for name in globals() if name.startswith("test_")}
    selected = {item.originalname for item in request.session.items if item.module is request.module}
    if here - selected:
        pytest.skip("only a part of this file's tests runs")
    pack = {name for name in object_info if name.startswith("MF")}
    assert pack - set(EXECUTED) == set()
