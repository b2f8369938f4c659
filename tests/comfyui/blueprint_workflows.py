"""The workflows of the template browser that are built from blueprints, each with a note beside it."""

from __future__ import annotations

from typing import Any

from .drawing import Drawing, workflow
from .write_blueprints import complete_depth, depth_to_image, image_to_depth, inpaint, text_to_image_and_depth

_INSIDE = (
    "\n\nThe wide node is a *blueprint*: click the icon in its title bar to see the nodes inside. It is in the search"
    " under its name, too."
)

TEXT = """## Text → image + depth → point cloud

Press **Run**. The built-in *nano* model makes a 128x128 picture and its depth together, in a few seconds on a CPU. \
Nothing to download. Turn the point cloud with the mouse.

**prompt**: nano knows simple rooms with one to three solids, for example
- *a red cube on a checkered floor*
- *a green ball behind a yellow cone with a brick wall*

**Full-size model**: see the workflow **11 Released Model - Text to Image and Depth**, or choose its files as \
*model_name*, *text_encoder* and *vae*."""

IMAGE = """## Image → depth → point cloud

Press **Run**: the built-in *nano* model estimates the depth of a rendered scene that it was not trained on. Nothing \
to download.

The picture stays as it is while its depth is made from noise. No prompt is needed.

**Your own picture**: put *Load Image* in place of *MF Example Scene*. nano knows rendered rooms only; for photographs \
see the workflow **12 Released Model - Image to Depth**.

**Depth for ControlNet** is saved as a gray picture, near is white."""

DEPTH = """## Depth → image

Press **Run**: the built-in *nano* model paints the given geometry in other colors, two pictures at once \
(*variations*). Nothing to download.

The prompt should fit the shapes in the depth map.

**Your own depth**: connect *MF Load Depth* (EXR, NPY, 16-bit PNG), a geometry, or a picture of depth. For a picture, \
say what bright means: *depth* (far is bright) or *disparity* (near is bright, as in ControlNet maps)."""

INPAINT = """## Inpaint a picture and its depth

Inside the mask the prompt is painted anew; outside, the picture keeps its pixels. The depth of the whole is made with \
it, and a second time from the finished picture (*refine_depth*).

**Your own mask**: put *Load Image* in place of the example, right-click it, *Open in MaskEditor*, draw, and connect \
its MASK in place of the rectangle. A mask acts in cells of 16 pixels.

Runs on the built-in *nano* model; nothing to download."""

SPARSE = """## Picture + a few measurements → dense depth

A picture, and its depth at a few points: from LiDAR, structure from motion, or a depth camera with gaps. The points \
correct every step of the sampler, so that the depth agrees with them and comes in **their unit**. From the picture \
alone, depth has no unit. *MF Save Depth* shows and saves it.

The points here are 3 of 100 pixels of an example's exact depth, drawn at random by core nodes.

**Your own points**: *MF Load Depth* reads NPY, EXR and 16-bit PNG files in which pixels without depth are 0. Connect \
its depth, and nothing to *valid*.

Runs on the built-in *nano* model; nothing to download."""


def workflows(definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The workflows by their names, which are what the template browser shows."""

    def canvas(text: str) -> Drawing:
        drawing = Drawing(definitions)
        drawing.note(text + _INSIDE, 480)
        return drawing

    found = {}

    def finish(name: str, drawing: Drawing, task: dict[str, Any]) -> None:
        found[name] = workflow(name, drawing, [task], ds={"scale": 0.65, "offset": [60, 120]})

    drawing, task = canvas(TEXT), text_to_image_and_depth(definitions, "a red cube on a checkered floor")
    made = drawing.stand_in(task, 1)
    drawing.add("PreviewImage", 1, title="Depth, near is red", images=made["depth_preview"])
    cloud = drawing.add("MFToPointCloud", 2, geometry=made["geometry"])
    drawing.add("SaveImage", 2, images=made["image"], filename_prefix="modality-forcing/image")
    drawing.add("PreviewPointCloud", 3, model_3d=cloud["point_cloud"], camera_info=cloud["camera"])
    finish("01 Text to Image, Depth and Point Cloud", drawing, task)

    drawing, task = canvas(IMAGE), image_to_depth(definitions)
    scene = drawing.add("MFExampleScene", 1, scene="cone_and_ball")
    made = drawing.stand_in(task, 2, image=scene["image"])
    drawing.add("PreviewImage", 2, title="Depth, near is red", images=made["depth_preview"])
    cloud = drawing.add("MFToPointCloud", 3, geometry=made["geometry"])
    drawing.add("SaveImage", 3, images=made["controlnet"], filename_prefix="modality-forcing/controlnet_depth")
    drawing.add("PreviewPointCloud", 4, model_3d=cloud["point_cloud"], camera_info=cloud["camera"])
    finish("02 Image to Depth and Point Cloud", drawing, task)

    drawing, task = canvas(DEPTH), depth_to_image(definitions, "a green ball on a tiled floor", 2)
    scene = drawing.add("MFExampleScene", 1, scene="yellow_sphere")
    made = drawing.stand_in(task, 2, depth=scene["depth"])
    drawing.add("SaveImage", 3, images=made["image"], filename_prefix="modality-forcing/variation")
    finish("03 Depth to Image", drawing, task)

    drawing, task = canvas(INPAINT), inpaint(definitions, "a red cone in front of a brick wall")
    scene = drawing.add("MFExampleScene", 1, scene="yellow_sphere")
    black = drawing.add("SolidMask", 1, value=0.0, width=128, height=128)
    white = drawing.add("SolidMask", 1, value=1.0, width=96, height=80)
    mask = drawing.add("MaskComposite", 2, destination=black["MASK"], source=white["MASK"], x=32, y=32, operation="add")
    made = drawing.stand_in(task, 3, image=scene["image"], mask=mask["MASK"])
    drawing.add("SaveImage", 4, images=made["image"], filename_prefix="modality-forcing/inpainted")
    finish("04 Inpaint Image and Depth", drawing, task)

    drawing, task = canvas(SPARSE), complete_depth(definitions)
    scene = drawing.add("MFExampleScene", 1, scene="three_cylinders")
    noise = drawing.add("EmptyImage", 1, width=128, height=128)
    noise = drawing.add("ImageAddNoise", 1, image=noise["IMAGE"], seed=1, strength=0.3)
    points = drawing.add("ImageToMask", 2, image=noise["IMAGE"])
    points = drawing.add("ThresholdMask", 2, mask=points["MASK"], value=0.56)
    inputs = {"image": scene["image"], "depth": scene["depth"], "valid": points["MASK"]}
    made = drawing.stand_in(task, 3, **inputs)
    drawing.add("MFSaveDepth", 4, depth=made["geometry"], filename_prefix="modality-forcing/completed")
    finish("05 Complete Sparse Depth", drawing, task)
    return found
