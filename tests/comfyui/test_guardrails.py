"""What cannot be meant is refused in a sentence, and what may be wrong is said in the log, over HTTP."""

import pytest

from .test_execution import Scene
from .test_faults import LIMIT, failure


def outcome(server, scene):
    return server.wait(server.queue(scene.graph.prompt), LIMIT)


def sampler(scene, latent, **inputs):
    options = {"steps": 1, "cfg": 1.0}
    conds = {"positive": scene.positive, "negative": scene.negative}
    return scene.add("MFSampler", model=scene.model, **conds, latent=latent, **{**options, **inputs})


@pytest.fixture
def scene(object_info):
    return Scene(object_info)


@pytest.mark.parametrize(
    ("task", "mode", "kept", "start"),
    [
        ("i2d", "joint", "picture", "MF Empty Latent"),
        ("i2d", "d2i", "picture", "MF Depth to Image Latent"),
        ("d2i", "joint", "depth", "MF Empty Latent"),
    ],
)
def test_a_mode_that_would_throw_away_what_is_kept_is_refused(server, scene, task, mode, kept, start):
    scene.add("PreviewAny", source=sampler(scene, scene.start(task), mode=mode)[1])
    assert failure(outcome(server, scene)) == (
        f"MF Sampler: mode {mode} would make the {kept} anew, which the latent keeps as it is; set mode to auto, or"
        f" connect {start}."
    )


@pytest.mark.parametrize("task", ["joint", "i2d"])
@pytest.mark.parametrize(
    ("kind", "name"), [("MFDepthToImageLatent", "MF Depth to Image Latent"), ("MFDepthDetokenize", "Depth Detokenize")]
)
def test_depth_that_was_not_made_yet_is_refused(server, scene, task, kind, name):
    node = scene.add(kind, depth=scene.start(task))
    scene.add("PreviewAny", source=node[0])
    message = failure(outcome(server, scene))
    assert message.startswith(name)
    assert message.endswith(
        ": the latent holds no depth yet; connect Encode Depth, or the depth that MF Sampler made of this latent."
    )


@pytest.mark.parametrize("kind", ["MFSaveDepth", "MFEncodeDepth", "MFDepthToImage"])
@pytest.mark.parametrize("what", ["photo", "preview"])
def test_a_picture_with_colors_is_no_depth(server, scene, kind, what):
    maps = scene.add("MFDepthDetokenize", depth=scene.add("MFEncodeDepth", depth=scene.example[1])[0])
    node = scene.add(kind, depth={"photo": scene.example[0], "preview": maps[1]}[what])
    if kind != "MFSaveDepth":
        scene.add("PreviewAny", source=node[0])
    assert "the picture has colors, so it is a photo or a colored preview" in failure(outcome(server, scene))


def test_a_colored_picture_is_no_disparity(server, scene):
    node = scene.add("MFEncodeDepth", depth=scene.example[0], meaning="disparity (near is bright)")
    scene.add("PreviewAny", source=node[0])
    assert "the picture has colors" in failure(outcome(server, scene))


def test_gray_maps_are_depth(server, scene):
    maps = scene.add("MFDepthDetokenize", depth=scene.add("MFEncodeDepth", depth=scene.example[1])[0])
    for image in (maps[2], maps[4]):
        scene.add("MFSaveDepth", depth=image, filename_prefix="depth/gray")
    scene.graph.run(server)


def test_a_stretched_gray_map_may_be_disparity(server, scene):
    said = "MF Save Depth: depth is a gray picture with numbers from 0 to 1"
    maps = scene.add("MFDepthDetokenize", depth=scene.add("MFEncodeDepth", depth=scene.example[1])[0])
    for image, warnings in ((maps[4], 0), (maps[0], 0), (maps[2], 1)):
        before = server.log.count(said)
        scene.add("MFSaveDepth", depth=image, filename_prefix="depth/gray")
        scene.graph.run(server)
        assert server.log.count(said) - before == warnings


@pytest.mark.parametrize("node", ["MFSampler", "KSampler"])
def test_nano_is_not_asked_for_pictures_that_it_cannot_make(server, scene, node):
    latent = scene.add("MFEmptyLatent", width=512, height=512)[0]
    made = sampler(scene, latent) if node == "MFSampler" else scene.ksampler(latent, steps=1)
    scene.add("PreviewAny", source=made[0])
    message = failure(outcome(server, scene))
    assert message.endswith(
        "This model was trained at 128x128 and is asked for 512x512, which gives noise: set width and height to 128 and"
        " 128."
    )


def test_a_canvas_somewhat_too_large_is_a_warning(server, scene):
    scene.add("PreviewAny", source=sampler(scene, scene.add("MFEmptyLatent", width=208, height=208)[0])[0])
    scene.graph.run(server)
    assert "trained at 128x128 and is asked for 208x208, which may look wrong" in server.log


def test_words_that_nano_does_not_read_are_a_warning(server, object_info):
    scene = Scene(object_info, text="a red cube on a wooden floor " * 4 + "beside a zeppelin")
    scene.add("PreviewAny", source=sampler(scene, scene.start("joint"))[0])
    scene.graph.run(server)
    assert "The prompt has 31 words and nano reads the first 16" in server.log
    assert "does not know these words of the prompt: beside, zeppelin." in server.log


def test_a_joint_run_that_leaves_a_mask_out_is_a_warning(server, scene):
    rgb = scene.add("VAEEncode", pixels=scene.example[0], vae=scene.vae)[0]
    mask = scene.add("SolidMask", value=0.5, width=128, height=128)[0]
    masked = scene.add("SetLatentNoiseMask", samples=rgb, mask=mask)[0]
    latent = scene.add("MFMergeLatent", rgb=masked)[0]
    scene.add("PreviewAny", source=sampler(scene, latent, mode="joint")[0])
    scene.graph.run(server)
    assert "mode joint makes all of the picture anew" in server.log


def test_a_picture_that_nano_does_not_know_is_a_warning(server, scene):
    said = "MF Image to Depth Latent: This picture is unlike the rendered scenes that nano was trained on"
    before = server.log.count(said)
    scene.add("PreviewAny", source=sampler(scene, scene.start("i2d"))[1])
    scene.graph.run(server)
    assert server.log.count(said) == before
    even = scene.add("EmptyImage", width=128, height=128, batch_size=1, color=0xB03060)[0]
    scene.add("PreviewAny", source=sampler(scene, scene.depth_latent(even))[1])
    scene.graph.run(server)
    assert server.log.count(said) == before + 1
