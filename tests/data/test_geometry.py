"""Tests of geometry: boxes, points and displacements agree with the pixels of transformed frames."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vidjax.data import transforms
from vidjax.data.geometry import Geometry

SHAPES = ((60, 90), (90, 60), (41, 41), (33, 200), (363, 511))


def config(**changes):
    fields = {
        "crop": "random_resized", "size": 32, "short_side": 40, "scale": (0.35, 1.0), "ratio": (0.75, 1.333),
        "short_side_range": (36, 48), "flip": True, "color_jitter": 0.0,
        "color_jitter_probability": 1.0, "grayscale": 0.0, "short_side_inverse": False,
        "auto_augment": None, "auto_augment_fill": (128, 128, 128), "auto_augment_interpolation": "bicubic",
        "resize": "area", "resize_to": None,
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def painted(height, width, *boxes):
    """Returns one black frame per box, in which the box is white."""
    video = np.zeros((len(boxes), height, width, 1), np.uint8)
    for image, (x1, y1, x2, y2) in zip(video, boxes):
        image[y1:y2, x1:x2] = 255
    return video


def found(image):
    """Measures the white box (x1, y1, x2, y2) in an image to a fraction of a pixel."""
    levels = image[..., 0] / 255
    sides = []
    for profile in (levels[levels.sum(1).argmax()], levels[:, levels.sum(0).argmax()]):
        length, center = profile.sum(), np.average(np.arange(len(profile)) + 0.5, weights=profile)
        sides.append((center - length / 2, center + length / 2))
    (x1, x2), (y1, y2) = sides
    return [x1, y1, x2, y2]


def random_box(rng, height, width):
    """Draws a box whose sides are a quarter of the frame's or longer."""
    x1, y1 = rng.integers(0, 3 * width // 4), rng.integers(0, 3 * height // 4)
    return x1, y1, rng.integers(x1 + width // 4, width + 1), rng.integers(y1 + height // 4, height + 1)


def check(view, geometry, box):
    """Compares a view with the box painted into its frame; returns whether the box is visible."""
    clipped, kept = geometry.clip_boxes(box)
    if (clipped[2:] - clipped[:2]).min() < 1.5:  # too little to measure, or nothing
        return False
    np.testing.assert_allclose(found(view[0]), clipped, atol=1)
    assert 0 < kept <= 1 and view.shape[1:3] == geometry.clip
    return True


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("crop", ["random_resized", "multi_scale", "short_side", "center"])
def test_boxes_follow_the_pixels_of_training_crops(crop, shape):
    visible, flipped = 0, set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        box = random_box(rng, *shape)
        view, geometry = transforms.train_transform(painted(*shape, box), config(crop=crop), rng, True)
        visible += check(view, geometry, box)
        flipped.add(geometry.flipped)
        assert geometry.frame == shape and hash(geometry) is not None
    assert visible > 10 and flipped == {False, True}


@pytest.mark.parametrize("resize_to", [None, (34, 51)])
@pytest.mark.parametrize("rule", transforms.RESIZES)
def test_boxes_follow_the_pixels_of_test_views(rule, resize_to):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        visible = 0
        for _ in range(8):
            box = random_box(rng, *shape)
            views = transforms.test_views(painted(*shape, box), config(resize=rule, resize_to=resize_to), 3)
            visible += sum(check(view, geometry, box) for view, geometry in views)
        assert visible > 8


def test_boxes_follow_the_warps_of_rand_augment():
    """A white box on gray lies within its mapped box, whose sides it touches."""
    cfg = config(crop="center", size=96, short_side=96, auto_augment="rand-m7-n2-p0.8-w0", flip=True)
    cfg.auto_augment_fill = (0, 0, 0)
    seen = set()
    for seed in range(60):
        video = np.repeat(painted(96, 96, (36, 30, 66, 54)), 3, -1)
        view, geometry = transforms.train_transform(video, cfg, np.random.default_rng(seed), True)
        clipped, kept = geometry.clip_boxes([36, 30, 66, 54])
        rows, columns = np.nonzero(view[0, ..., 0] > 127)
        if kept < 1 or len(rows) < 300 or len(rows) > 2000:
            continue  # partly outside, or inverted
        sides = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(sides, clipped, atol=1.5)
        seen.add((geometry.flipped, any(geometry.shear)))
    assert len(seen) == 4


@pytest.mark.parametrize("crop", ["random_resized", "multi_scale", "short_side"])
def test_displacements_follow_a_moving_pattern(crop):
    first, measured = np.array([70, 60, 90, 85]), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved = rng.integers(-10, 11, 2)
        boxes = np.stack([first, first + np.tile(moved, 2)])
        cfg = config(crop=crop, size=64, short_side_range=(64, 90), scale=(0.7, 1.0))
        view, geometry = transforms.train_transform(painted(150, 160, *boxes), cfg, rng, True)
        if geometry.clip_boxes(boxes)[1].min() < 1:
            continue
        before, after = (np.reshape(found(image), (2, 2)).mean(0) for image in view)
        np.testing.assert_allclose(after - before, geometry.flow_vectors(moved), atol=0.5)
        measured += 1
    assert measured > 10


def test_steps_by_hand():
    geometry = Geometry.identity(100, 200).crop(10, 40, 80, 120).resize(40, 30)  # y / 2, x / 4
    assert geometry.scale == (0.5, 0.25) and geometry.offset == (-5, -10) and not geometry.flipped
    np.testing.assert_array_equal(geometry.boxes([40, 10, 160, 90]), [0, 0, 30, 40])
    mirrored = geometry.flip()
    assert mirrored.flipped and mirrored.clip == (40, 30) and mirrored.frame == (100, 200)
    np.testing.assert_array_equal(mirrored.boxes([[40, 10, 60, 30], [140, 10, 160, 90]]),
                                  [[25, 0, 30, 10], [0, 0, 5, 40]])  # fmt: skip
    np.testing.assert_array_equal(mirrored.points([[[40, 10]]]), [[[30, 0]]])
    np.testing.assert_array_equal(mirrored.flow_vectors([8, 2]), [-2, 1])
    assert mirrored.flip() == geometry
    # A flip before a crop differs from one after it.
    assert Geometry.identity(10, 10).flip().crop(0, 0, 10, 4).points([9.0, 0]).tolist() == [1, 0]


def test_clipped_boxes_report_the_visible_fraction():
    geometry = Geometry.identity(100, 100).crop(0, 50, 100, 50)
    boxes = [[40, 10, 80, 30], [0, 0, 20, 20], [60, 60, 70, 70], [60, 60, 60, 70]]
    clipped, kept = geometry.clip_boxes(boxes)
    np.testing.assert_array_equal(kept, [0.75, 0, 1, 0])
    np.testing.assert_array_equal(clipped[0], [0, 10, 30, 30])
    np.testing.assert_array_equal(clipped[2], geometry.boxes(boxes[2]))
    assert geometry.clip_boxes(np.zeros((2, 0, 4)))[1].shape == (2, 0)
    assert geometry.clip_boxes(boxes[0])[1] == 0.75


@pytest.mark.parametrize("seed", range(20))
def test_inverse_and_composition(seed):
    rng = np.random.default_rng(seed)
    parts, whole = [], Geometry.identity(*rng.integers(50, 500, 2).tolist())
    points = rng.uniform(-50, 500, (3, 5, 2))
    mapped = points
    for step in rng.permutation(["crop", "flip", "resize", "flip", "crop"]):
        h, w = whole.clip
        arguments = {
            "crop": (rng.integers(h // 3), rng.integers(w // 3), h // 2, w // 2),
            "resize": rng.integers(20, 300, 2).tolist(),
            "flip": (),
        }[step]
        parts.append(getattr(Geometry.identity(h, w), step)(*arguments))
        whole = getattr(whole, step)(*arguments)
        mapped = parts[-1].points(mapped)
    np.testing.assert_allclose(whole.points(points), mapped, rtol=1e-12, atol=1e-9)
    left = parts[0].then(parts[1]).then(parts[2]).then(parts[3].then(parts[4]))
    assert (left.frame, left.clip) == (whole.frame, whole.clip)
    np.testing.assert_allclose(left.points(points), mapped, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(whole.inverse_points(mapped), points, rtol=1e-12, atol=1e-9)
    boxes = np.concatenate([points, points + np.array([7, 9])], -1)
    clip_boxes = whole.boxes(boxes)
    assert (clip_boxes[..., :2] < clip_boxes[..., 2:]).all()
    np.testing.assert_allclose(whole.inverse_boxes(clip_boxes), boxes, rtol=1e-12, atol=1e-9)
    displaced = whole.points(points + np.array([3, 4])) - mapped
    np.testing.assert_allclose(displaced - whole.flow_vectors([3, 4]), 0, atol=1e-9)


def warp(rng, height, width):
    """Draws the coefficients of a rotation, shear and translation about the center."""
    angle, (tilt, slant) = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.3, 2)
    linear = np.array([[np.cos(angle), np.sin(angle) + slant], [tilt - np.sin(angle), np.cos(angle)]])
    center = np.array([width, height]) / 2
    offset = center - linear @ center + rng.uniform(-0.2, 0.2, 2) * (width, height)
    return np.column_stack([linear, offset]).ravel().tolist()


def warped(image, read_at):
    picture = Image.fromarray(image[..., 0])
    return np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, read_at, Image.BILINEAR))[
        ..., None
    ]


def test_a_marker_lands_where_the_geometry_says():
    """Random chains of steps move a drawn disc to the mapped point and into the mapped box."""
    whole = partly = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        h, w = rng.integers(150, 300, 2).tolist()
        at = rng.uniform(0.3, 0.7, 2) * (w, h)
        y, x = np.mgrid[:h, :w] + 0.5
        image = (255 * np.clip(9 - np.hypot(x - at[0], y - at[1]), 0, 1)).astype(np.uint8)[..., None]
        drawn, geometry = image.sum(), Geometry.identity(h, w)
        for step in rng.permutation(["crop", "flip", "resize", "warp", "warp"]):
            h, w = geometry.clip
            if step == "crop":
                box = (h // 8, w // 8, 3 * h // 4, 3 * w // 4)
                image, geometry = transforms.crop(image[None], *box)[0], geometry.crop(*box)
            elif step == "flip":
                image, geometry = image[:, ::-1], geometry.flip()
            elif step == "resize":
                size = rng.integers(h, 2 * h), rng.integers(w, 2 * w)
                image, geometry = transforms.resize(image[None], *size)[0], geometry.resize(*size)
            else:
                read_at = warp(rng, h, w)
                image, geometry = warped(image, read_at), geometry.warp(read_at)
        assert geometry.flipped
        box = [*(at - 9), *(at + 9)]
        (x1, y1, x2, y2), (_, kept) = geometry.boxes(box), geometry.clip_boxes(box)
        scale = abs(np.linalg.det(geometry.flow_vectors(np.eye(2))))
        visible = image.sum() / (drawn * scale)
        assert kept > 0 or visible < 0.01
        if visible > 0.99:
            rows, columns = np.nonzero(image[..., 0] > 127)
            center = np.average(np.argwhere(image[..., 0])[:, ::-1] + 0.5, 0, image[image > 0])
            np.testing.assert_allclose(center, geometry.points(at), atol=0.5)
            assert x1 - 0.5 < columns.min() and columns.max() < x2 - 0.5
            assert y1 - 0.5 < rows.min() and rows.max() < y2 - 0.5
            assert kept > 0.9
        whole, partly = whole + (visible > 0.99), partly + (visible < 0.9)
    assert whole > 20 and partly > 5


def test_warps_by_hand():
    turned = Geometry.identity(100, 100).warp((0, 1, 0, -1, 0, 100))  # a quarter turn clockwise
    np.testing.assert_allclose(turned.boxes([10, 20, 30, 60]), [40, 10, 80, 30])
    np.testing.assert_allclose(turned.inverse_boxes([40, 10, 80, 30]), [10, 20, 30, 60])
    np.testing.assert_allclose(turned.flow_vectors([1, 0]), [0, 1])
    assert turned.window is None and not turned.flipped and turned.flip().flipped
    sheared = Geometry.identity(100, 200).warp((1, 0.5, 0, 0, 1, 0))
    np.testing.assert_array_equal(sheared.boxes([100, 20, 110, 40]), [80, 20, 100, 40])
    np.testing.assert_array_equal(sheared.inverse_points(sheared.points([3, 4])), [3, 4])


def test_the_window_excludes_what_translations_fill():
    moved = Geometry.identity(100, 100).warp((1, 0, -30, 0, 1, 0))  # to the right by 30
    assert moved.window == (30, 0, 100, 100)
    back = moved.warp((1, 0, 30, 0, 1, 0))  # the right part is lost
    assert back.window == (0, 0, 70, 100)
    clipped, kept = back.clip_boxes([[60, 0, 80, 10], [80, 0, 90, 10]])
    np.testing.assert_array_equal(clipped, [[60, 0, 70, 10], [70, 0, 70, 10]])
    np.testing.assert_array_equal(kept, [0.5, 0])
    view = back.crop(0, 50, 50, 50).resize(100, 100).flip()
    assert view.window == (60, 0, 100, 100)
    assert moved.warp((1, 0, -90, 0, 1, 0)).clip_boxes([0, 0, 100, 100])[1] == 0
    for geometry in (back, view, Geometry.identity(3, 4)):
        assert Geometry.from_array(geometry.to_array()) == geometry


def test_composition_requires_matching_sizes():
    with pytest.raises(ValueError, match=r"\(9, 8\) frames cannot follow one of \(5, 5\) clips"):
        Geometry.identity(5, 5).then(Geometry.identity(9, 8))
