"""Write the pack's blueprints, subgraphs/*.json, and the workflows that are built from them.

A blueprint is a whole task as one node. Its inputs and the widgets that matter are `Given`; those that have a value are
shown on the node. ComfyUI offers the files of ``subgraphs`` in the search and under Subgraph Blueprints.

Usage, in the root of the repository: python -m tests.comfyui.write_blueprints
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .drawing import Drawing, Given, Made, Slot, subgraph, workflow
from .host import PACK
from .record_object_info import RECORD, write_json

BLUEPRINTS, WORKFLOWS = PACK / "subgraphs", PACK / "workflows"
CATEGORY = "Modality Forcing"

#: What the search finds a blueprint by.
ALIASES = {
    "Text to Image + Depth": ["modality forcing", "rgbd", "flux depth", "flux 2", "text to depth", "joint"],
    "Image to Depth": ["modality forcing", "flux depth", "flux 2", "depth estimation", "depth map", "monocular depth"],
    "Depth to Image": ["modality forcing", "flux depth", "flux 2", "depth control", "depth controlnet"],
    "Inpaint Image + Depth": ["modality forcing", "flux depth", "inpainting", "object removal", "flux 2"],
    "Complete Depth": ["modality forcing", "sparse depth", "lidar", "fill depth", "depth inpainting", "densify"],
}

NANO, OWN = "nano (built-in)", "from the checkpoint"
DEPTH_MEANING = "depth (far is bright)"


class Task:
    """A blueprint being drawn: the model and the settings that every task has."""

    def __init__(self, definitions: dict[str, Any], *, side: int = 128, steps: int = 50) -> None:
        self.drawing = Drawing(definitions, first=101)
        self.sockets: list[Given] = []
        self.model = [Given("model_name", NANO), Given("text_encoder", OWN), Given("vae", OWN)]
        self.size = [Given("width", side), Given("height", side)]
        self.seed, self.steps = Given("seed", 0), Given("steps", steps)
        choices = dict(zip(("model_name", "text_encoder", "vae"), self.model, strict=True))
        self.loaded = self.add("MFLoadModel", 0, **choices)

    def add(self, kind: str, column: int, **inputs: Any) -> Made:
        return self.drawing.add(kind, column, **inputs)

    def socket(self, name: str, kind: str = "") -> Given:
        """An input of the blueprint that takes a link."""
        self.sockets.append(Given(name, kind=kind))
        return self.sockets[-1]

    def text(self, prompt: Given | str) -> Slot:
        title = "Empty prompt" if prompt == "" else "Prompt"
        return self.add("CLIPTextEncode", 1, title=title, clip=self.loaded["CLIP"], text=prompt)["CONDITIONING"]

    def sample(self, latent: Slot, positive: Slot, negative: Slot, model: Slot | None = None, **more: Any) -> Made:
        conditions = {"positive": positive, "negative": negative}
        model = model or self.loaded["MODEL"]
        return self.add(
            "MFSampler", 2, model=model, latent=latent, seed=self.seed, steps=self.steps, **conditions, **more
        )

    def picture(self, rgb: Slot) -> Slot:
        return self.add("VAEDecode", 3, samples=rgb, vae=self.loaded["VAE"])["IMAGE"]

    def restored(self, content: Slot, latent: Slot, **image: Any) -> Slot:
        return self.add("MFRestoreSize", 4, content=content, latent=latent, **image)["content"]

    def depth_pictures(self, geometry: Slot) -> tuple[Slot, Slot]:
        """Depth in colors, which is also shown, and the map for ControlNets."""
        colored = self.add("MFDepthToImage", 5, title="In colors", depth=geometry, colors="turbo")["image"]
        gray = self.add("MFDepthToImage", 5, title="For ControlNet", depth=geometry)["image"]
        self.add("PreviewImage", 6, title="Depth", images=colored)
        return colored, gray

    def blueprint(self, name: str, description: str, widgets: list[Given], outputs: dict[str, Slot]) -> dict[str, Any]:
        inputs = [*self.sockets, *widgets, self.seed, self.steps, *self.size, *self.model]
        return subgraph(name, description, CATEGORY, self.drawing, inputs, outputs)


def text_to_image_and_depth(
    definitions: dict[str, Any], prompt: str = "a red cube and a blue sphere on a wooden floor"
) -> dict[str, Any]:
    task = Task(definitions)
    text, cfg, tilt = Given("prompt", prompt), Given("cfg", 4.0), Given("tilt", 5.0)
    width, height = task.size
    latent = task.add("MFEmptyLatent", 1, width=width, height=height)["latent"]
    made = task.sample(latent, task.text(text), task.text(""), cfg=cfg, tilt=tilt)
    image = task.picture(made["rgb"])
    maps = task.add("MFDepthDetokenize", 4, depth=made["depth"], image=image)
    task.add("PreviewImage", 5, title="Image", images=image)
    task.add("PreviewImage", 5, title="Depth", images=maps["preview"])
    return task.blueprint(
        "Text to Image + Depth",
        "Make a picture and its depth together from a prompt. The geometry goes to To Point Cloud, MF Render View and"
        " MF Save Depth.",
        [text, cfg, tilt],
        {
            "image": image,
            "geometry": maps["geometry"],
            "depth_preview": maps["preview"],
            "controlnet": maps["controlnet"],
            "latent": made["joint"],
        },
    )


def image_to_depth(definitions: dict[str, Any]) -> dict[str, Any]:
    task = Task(definitions)
    image = task.socket("image")
    width, height = task.size
    start = task.add("MFImageToDepthLatent", 1, image=image, vae=task.loaded["VAE"], width=width, height=height)
    nothing = task.text("")
    made = task.sample(start["latent"], nothing, nothing)
    maps = task.add("MFDepthDetokenize", 3, depth=made["depth"], image=start["image"])
    geometry = task.restored(maps["geometry"], made["depth"], image=image)
    colored, gray = task.depth_pictures(geometry)
    return task.blueprint(
        "Image to Depth",
        "Estimate the depth of a picture, at the picture's own size. No prompt is needed. width and height are those to"
        " work at: about 128x128 for nano, 512x512 for the released model.",
        [],
        {"geometry": geometry, "depth_preview": colored, "controlnet": gray},
    )


def depth_to_image(definitions: dict[str, Any], prompt: str = "", variations: int = 1) -> dict[str, Any]:
    task = Task(definitions)
    depth = task.socket("depth")
    text, cfg, meaning = Given("prompt", prompt), Given("cfg", 4.0), Given("meaning", DEPTH_MEANING)
    count = Given("variations", variations)
    width, height = task.size
    encoded = task.add("MFEncodeDepth", 1, depth=depth, meaning=meaning, width=width, height=height)["depth"]
    latent = task.add("MFDepthToImageLatent", 1, depth=encoded, variations=count)["latent"]
    made = task.sample(latent, task.text(text), task.text(""), cfg=cfg)
    image = task.picture(made["rgb"])
    task.add("PreviewImage", 4, title="Image", images=image)
    return task.blueprint(
        "Depth to Image",
        "Paint a picture that follows a depth map. meaning says whether far or near is bright in a map that comes as a"
        " picture.",
        [text, meaning, count, cfg],
        {"image": image, "latent": made["joint"]},
    )


def inpaint(definitions: dict[str, Any], prompt: str = "") -> dict[str, Any]:
    task = Task(definitions)
    image, mask = task.socket("image"), task.socket("mask")
    text, cfg, refine = Given("prompt", prompt), Given("cfg", 4.0), Given("refine_depth", True)
    width, height = task.size
    start = task.add("MFImageToDepthLatent", 1, image=image, vae=task.loaded["VAE"], width=width, height=height)
    kept = task.add("MFSplitLatent", 1, latent=start["latent"])["rgb"]
    masked = task.add("SetLatentNoiseMask", 1, samples=kept, mask=mask)["LATENT"]
    latent = task.add("MFMergeLatent", 1, rgb=masked)["latent"]
    made = task.sample(latent, task.text(text), task.text(""), cfg=cfg, refine_depth=refine)
    fresh = task.restored(task.picture(made["rgb"]), start["latent"])
    whole = task.add("ImageCompositeMasked", 5, destination=image, source=fresh, mask=mask)["IMAGE"]
    maps = task.add("MFDepthDetokenize", 3, depth=made["depth"], image=start["image"])
    geometry = task.restored(maps["geometry"], start["latent"], image=whole)
    task.add("PreviewImage", 6, title="Image", images=whole)
    colored, gray = task.depth_pictures(geometry)
    return task.blueprint(
        "Inpaint Image + Depth",
        "Make the masked part of a picture anew and the depth of the whole. Outside of the mask the picture keeps its"
        " pixels.",
        [text, refine, cfg],
        {"image": whole, "geometry": geometry, "depth_preview": colored, "controlnet": gray},
    )


def complete_depth(definitions: dict[str, Any]) -> dict[str, Any]:
    task = Task(definitions)
    image, depth, valid = task.socket("image"), task.socket("depth"), task.socket("valid")
    meaning = Given("meaning", DEPTH_MEANING)
    width, height = task.size
    start = task.add("MFImageToDepthLatent", 1, image=image, vae=task.loaded["VAE"], width=width, height=height)
    measured = task.add("MFEncodeDepth", 1, depth=depth, meaning=meaning, width=width, height=height, valid=valid)
    nothing = task.text("")
    guided = task.add(
        "MFDepthCompletion", 1, model=task.loaded["MODEL"], latent=start["latent"], depth=measured["depth"]
    )
    made = task.sample(guided["latent"], nothing, nothing, model=guided["MODEL"])
    maps = task.add("MFDepthDetokenize", 3, depth=made["depth"], image=start["image"])
    geometry = task.restored(maps["geometry"], made["depth"], image=image)
    colored, gray = task.depth_pictures(geometry)
    return task.blueprint(
        "Complete Depth",
        "Fill a picture's depth where it was not measured: LiDAR points, structure from motion, maps with holes. The"
        " result has the unit of the measurements. Picture and depth have the same proportions; valid is white where"
        " the depth is known, and without it every positive pixel counts.",
        [meaning],
        {"geometry": geometry, "depth_preview": colored, "controlnet": gray},
    )


ALL: tuple[Callable[..., dict[str, Any]], ...] = (
    text_to_image_and_depth,
    image_to_depth,
    depth_to_image,
    inpaint,
    complete_depth,
)


def blueprint_file(definitions: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """A file of ``subgraphs``: one node that stands for the subgraph, and what the search knows of it."""
    drawing = Drawing(definitions)
    drawing.stand_in(definition, 0)
    about = {"BlueprintDescription": definition["description"], "BlueprintSearchAliases": ALIASES[definition["name"]]}
    return workflow(definition["name"], drawing, [definition], **about)


def files() -> dict[Path, dict[str, Any]]:
    """Every file that this writes."""
    from .blueprint_workflows import workflows

    definitions = json.loads(RECORD.read_text(encoding="utf-8"))
    drawn = [task(definitions) for task in ALL]
    found = {BLUEPRINTS / f"{one['name']}.json": blueprint_file(definitions, one) for one in drawn}
    return found | {WORKFLOWS / f"{name}.json": one for name, one in workflows(definitions).items()}


def write_files() -> None:
    BLUEPRINTS.mkdir(exist_ok=True)
    for path, value in files().items():
        write_json(path, value)


if __name__ == "__main__":
    write_files()
