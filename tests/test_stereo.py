"""Two eyes: what is nearer than the screen is crossed, what is farther is not; each eye has its place in a layout."""

import pytest
import torch

from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov
from mforce.mforce_core.scene3d.poses import extrinsics_of
from mforce.mforce_core.scene3d.stereo import ANAGLYPH, EYES, LAYOUTS, LEFT_IS_PICTURE, compose, eye_cameras


@pytest.mark.parametrize("eyes", EYES)
def test_both_eyes_agree_at_the_screen_and_near_points_are_crossed(eyes: str) -> None:
    lens, screen, baseline = intrinsics_from_fov(60, 80, 50.0), 3.0, 0.2
    cameras = eye_cameras(lens, baseline, screen, eyes)
    depths = torch.tensor([1.5, 3.0, 9.0], dtype=torch.float64)
    points = torch.stack([0.3 * depths, -0.2 * depths, depths, torch.ones(3)])
    seen = []
    for pose, own in cameras:
        x, y, z = (extrinsics_of(pose).double() @ points)[:3]
        seen.append((own.double() @ torch.stack([x / z, y / z, torch.ones(3)]))[:2])
    left, right = seen
    # By similar triangles: the parallax is the baseline, in picture widths at that depth, less that at the screen.
    parallax = lens[0, 0].double() * baseline * (1 / depths - 1 / screen)
    torch.testing.assert_close(left[0] - right[0], parallax, rtol=0, atol=1e-6)
    torch.testing.assert_close(left[1], right[1], rtol=0, atol=1e-6)
    if eyes == LEFT_IS_PICTURE:
        assert torch.equal(cameras[0][0].position, torch.zeros(3))
        assert torch.equal(cameras[0][1], lens)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_left_eye_is_on_the_left_on_top_or_in_red(layout: str) -> None:
    left, right = torch.full((4, 6, 3), 0.2), torch.full((4, 6, 3), 0.8)
    made = compose(left, right, layout)
    if layout == ANAGLYPH:  # red glass is worn on the left
        assert (made == torch.tensor([0.2, 0.8, 0.8])).all()
        return
    height, width = (4, 12) if "side" in layout else (8, 6)
    if layout.startswith("half"):
        height, width = 4, 6
    assert made.shape == (height, width, 3)
    assert (made[0, 0] == 0.2).all()
    assert (made[-1, -1] == 0.8).all()
    assert (made == 0.2).sum() == (made == 0.8).sum()
