"""Tests that `vidjax audit` finds each planted fault of the sampling, and none in sound configs."""

import functools
import json

import cv2
import ml_collections
import numpy as np
import pytest

from vidjax.cli import main
from vidjax.config_schema import schema
from vidjax.data import clips, sampling, transforms
from vidjax.data.audit import Part, audit
from vidjax.data.audit.labels import directional, mirrored_words
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import ListSource
from vidjax.data.datasets.synthetic_motion import encode
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.layers.preprocess import Inputs

SIDES = ("swipe_left", "swipe_right")


def config(**changes):
    small = dict(frames=6, stride=2.0, size=32, short_side=36)
    return ml_collections.ConfigDict(schema().data.to_dict() | small | changes)


@functools.cache
def video(seed, frames=30, fps=25, size=(40, 56)):
    """Returns an encoded texture that moves and changes its brightness."""
    height, width = size
    noise = np.random.default_rng(seed).integers(0, 256, (height + 80, width + 120, 3)).astype(np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    noise = (noise - noise.mean()) * 6 + (150, 110, 80)  # reddish
    moved = [noise[2 * t % 80 :, 3 * t % 120 :][:height, :width] for t in range(frames)]
    return encode(np.clip(np.stack(moved), 0, 255).astype(np.uint8), fps)


def source(count=6, names=("a", "b"), mirror=None, directional=False, segment=(None, None), **changes):
    """Returns videos; a list of a change is one value for each of them in turn."""
    records = []
    for i in range(count):
        own = {k: v[i % len(v)] if isinstance(v, list) else v for k, v in changes.items()}
        records.append(Record(video(i, **own), ClassTarget(i % len(names)), f"v{i}", *segment))
    return ListSource(tuple(records), names, directional, mirror=mirror)


@pytest.fixture(scope="module")
def sound():
    return source()


def check(videos, cfg=None, test=None, clips=1, crops=1, **options):
    """Audits videos as training and as test data; returns the findings."""
    cfg = cfg or config()
    evaluation = Part("val", videos, test or cfg, clips, crops)
    return audit(Part("train", videos, cfg), [evaluation], videos=6, draws=2, **options).findings


def kinds(findings):
    return {(f.check, f.severity, f.part) for f in findings}


@pytest.mark.parametrize(
    "changes, views",
    [
        (dict(), (4, 3)),
        (dict(starts="left", short="hold"), (3, 1)),
        (dict(starts="centers", crop="short_side", short_side_range=(32, 40)), (2, 1)),
        (dict(target_fps=12.5, stride=1.0, crop="multi_scale"), (4, 3)),
        (dict(target_fps=25.0, stride=3.0), (1, 1)),
        (dict(sampling="segments", crop="center", color_jitter=0.4), (2, 3)),
        (dict(sampling="segments", frames=3), (1, 1)),
        (dict(sampling="uniform", auto_augment="rand-m7-n4-mstd0.5-inc1"), (1, 1)),
        (dict(sampling="hierarchical", repeats=2), (2, 1)),
        (dict(grey=True, repeats=2, repeats_apart=True), (1, 3)),
    ],
)
def test_sound_sampling_has_no_findings(sound, changes, views):
    assert check(sound, config(**changes), None, *views) == ()


def test_segments_of_a_video_are_sound():
    assert check(source(segment=(0.2, 1.1))) == ()


def shifted(rule, before=0, after=0, by=0):
    """Returns a sampler that leaves out frames `before` and `after` the others, and then shifts by `by`."""

    def sampler(total, offsets, *args, times=None, **options):
        times = np.arange(total + 1.0) if times is None else times
        inner = times[before : total + 1 - after] - times[before]
        return rule(total - before - after, offsets, *args, times=inner, **options) + before + by

    return sampler


@pytest.mark.parametrize(
    "name, fault, expected, text",
    [
        (
            "place",
            dict(after=1),
            ("coverage", "train"),
            "reaches the last frame of its video; the nearest is 1",
        ),
        (
            "place",
            dict(before=1),
            ("coverage", "train"),
            "reaches the first frame of its video; the nearest is 1",
        ),
        ("place", dict(by=1), ("frames", "train"), "request frames that do not exist"),
        ("place", dict(by=-1), ("frames", "train"), "request frames that do not exist"),
        ("spread", dict(after=1), ("coverage", "val"), "no test clip reaches the last frame"),
        ("spread", dict(before=1), ("coverage", "val"), "no test clip reaches the first frame"),
    ],
)
def test_off_by_one_of_the_sampler(sound, monkeypatch, name, fault, expected, text):
    monkeypatch.setattr(sampling, name, shifted(getattr(sampling, name), **fault))
    finding = check(sound, clips=3)[0]
    assert (finding.check, finding.part) == expected and finding.severity == "error"
    assert text in finding.message and finding.clips[0].id.startswith("v") and finding.clips[0].frames


@pytest.mark.parametrize("changes", [{}, dict(sampling="uniform"), dict(starts="centers")])
def test_a_test_clip_that_is_not_centered(sound, monkeypatch, changes):
    name = "uniform" if changes.get("sampling") else "spread"
    rule = getattr(sampling, name)
    monkeypatch.setattr(sampling, name, lambda *args, **options: rule(*args, **options) - 1)
    found = [f for f in check(sound, config(**changes)) if f.part == "val"]
    assert kinds(found) == {("coverage", "error", "val")} and "frames too early" in found[0].message


def test_a_training_clip_that_does_not_move(sound, monkeypatch):
    rule = sampling.place
    monkeypatch.setattr(
        sampling, "place", lambda total, offsets, rng, *a, **k: rule(total, offsets, None, *a, **k)
    )
    (finding,) = check(sound)
    assert "always have the same frames" in finding.message and finding.check == "coverage"


def test_frames_out_of_order(sound, monkeypatch):
    rule = sampling.place
    monkeypatch.setattr(sampling, "place", lambda *args, **options: rule(*args, **options)[::-1])
    found = check(sound)
    assert ("frames", "error", "train") in kinds(found) and "go back in time" in found[0].message


@pytest.mark.parametrize("first, last", [(-1, 0), (0, 1), (-5, -5)])
def test_clips_that_leave_their_segment(monkeypatch, first, last):
    rule = clips.span

    def moved(*args):
        start, total, ratio = rule(*args)
        return start + first, total - first + last, ratio

    monkeypatch.setattr(clips, "span", moved)
    found = check(source(segment=(0.2, 1.0)), clips=2)
    assert {("frames", "error", "train"), ("frames", "error", "val")} <= kinds(found)
    assert "frames outside of their segment" in found[0].message
    assert "frame of the segment, 5 to 24" in found[0].clips[0].text


def test_frames_that_are_not_those_of_their_times(sound, monkeypatch):
    rule = ClipReader.clip
    monkeypatch.setattr(ClipReader, "clip", lambda self, x, *rest: rule(self, np.roll(x, -1, 0), *rest))
    found = check(sound)
    assert kinds(found) == {("content", "error", "train"), ("content", "error", "val")}
    assert "2 after those of their times" in found[0].message


def test_a_transform_without_its_geometry(sound, monkeypatch):
    rule = transforms.train_transform
    monkeypatch.setattr(
        transforms, "train_transform", lambda *args: (rule(*args)[0][:, ::-1], rule(*args)[1])
    )
    (finding,) = check(sound)
    assert (finding.check, finding.part) == ("content", "train") and "geometry describe" in finding.message


@pytest.mark.parametrize(
    "changes, text",
    [
        (dict(), "jumps from their end back to their start"),
        (dict(short="hold"), "repetitions of their last frame"),
        (dict(sampling="uniform"), "have fewer than 6 frames, which repeat in place"),
    ],
)
def test_short_videos(changes, text):
    some = source(frames=[30, 5])
    found = [f for f in check(some, config(**changes)) if f.check == "short"]
    assert kinds(found) == {("short", "warning", "train"), ("short", "warning", "val")}
    assert found[0].message.startswith("3 of 6 videos") and text in found[0].message
    assert {c.id for c in found[0].clips} == {"v1", "v3", "v5"}


def test_frame_rates_below_the_target():
    found = check(source(fps=10), config(target_fps=25.0, stride=1.0))
    assert kinds(found) == {("short", "warning", "train"), ("short", "warning", "val")}
    assert "repeat in place" in found[0].message and "lower data.target_fps" in found[0].change


def test_uneven_spacing_is_noted(sound):
    found = check(sound, config(stride=1.5))
    assert kinds(found) == {("spacing", "note", "train"), ("spacing", "note", "val")}


def test_resize_that_changes_the_aspect(sound, monkeypatch):
    (finding,) = check(sound, config(resize_to=(36, 36)))
    assert (finding.check, finding.severity, finding.part) == ("aspect", "warning", "val")
    assert "1.4 times narrower" in finding.message and "resize_to" in finding.change

    def squeezed(x, size, *_):
        return transforms._crop_and_resize(x, 0, 0, *x.shape[1:3], size)

    monkeypatch.setattr(transforms, "random_resized_crop", squeezed)
    (finding,) = (f for f in check(sound) if f.part == "train")
    assert finding.check == "aspect" and "1.4 times narrower" in finding.message


def test_random_crops_of_wide_frames_that_are_mostly_wide_are_noted():
    found = check(source(size=(40, 80)), config(scale=(0.5, 0.65)))
    (finding,) = (f for f in found if f.part == "train")
    assert (finding.check, finding.severity) == ("aspect", "note")
    assert "narrower than their videos on average" in finding.message


def test_pixels_that_are_not_square(sound, monkeypatch):
    monkeypatch.setattr("vidjax.data.audit.observe._pixel_aspect", lambda record: 4 / 3)
    assert {f.check for f in check(sound)} == {"aspect"}


def test_identical_views():
    square = source(size=(40, 40))
    (finding,) = check(square, config(short_side=32), None, 2, 3)
    assert (finding.check, finding.severity, finding.part) == ("views", "error", "val")
    assert finding.clips[0].text == "equals clip 0 crop 1" and "evals.val.crops" in finding.change
    found = check(source(frames=[30, 30, 12]), None, None, 4, 1)
    assert kinds(found) == {("views", "warning", "val")} and "evals.val.clips" in found[0].change


@pytest.mark.parametrize(
    "changes, severity, text",
    [
        (dict(stride=4.0), "error", "2 times as far apart"),
        (
            dict(frames=9),
            "note",
            "uint8 [6, 32, 32, 3] in training and uint8 [9, 32, 32, 3] in the evaluation",
        ),
        (dict(size=36), "note", "[6, 36, 36, 3] in the evaluation"),
        (dict(grey=True), "error", "[6, 32, 32, 1] in the evaluation"),
        (dict(short_side=96), "warning", "times as large in test views"),
    ],
)
def test_evaluation_that_differs_from_training(sound, changes, severity, text):
    (finding,) = check(sound, test=config(**changes))
    assert (finding.check, finding.severity, finding.part) == ("mismatch", severity, "val")
    assert text in finding.message and len(finding.clips) >= 2


def test_short_videos_padded_differently():
    found = check(source(frames=6), test=config(short="hold"))
    assert ("mismatch", "error", "val") in kinds(found)
    assert "padded in different ways" in found[0].message


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda x: x[..., ::-1], "red and blue are exchanged"),
        (transforms.grayscale, "test views are gray, and training clips are in color"),
        (lambda x: x // 3, "pixels of the same videos have a mean of"),
    ],
)
def test_colors_that_differ_from_training(sound, monkeypatch, change, text):
    rule = transforms.test_views
    monkeypatch.setattr(transforms, "test_views", lambda *args: [(change(x), g) for x, g in rule(*args)])
    (finding,) = check(sound)
    assert (finding.check, finding.severity) == ("mismatch", "error") and text in finding.message


def test_statistics_of_another_range(sound):
    bytes_, unit = (
        Inputs(("rgb",), {"rgb": m}, {"rgb": s})
        for m, s in (((114.0,) * 3, (57.0,) * 3), ((0.45,) * 3, (0.225,) * 3))
    )
    assert kinds(check(sound, normalize=bytes_)) == {
        ("normalization", "warning", p) for p in ("train", "val")
    }
    assert check(sound, normalize=unit) == ()


@pytest.mark.parametrize(
    "about, flip, expected",
    [
        (dict(), True, "keep their labels"),
        (dict(), False, None),
        (dict(mirror=(1, 0)), True, None),
        (dict(mirror=(0, 1)), True, "keep their labels"),
        (dict(directional=True), True, None),
        (dict(names=(*SIDES, "c"), mirror=(2, 1, 0)), True, "not the mirror image of theirs"),
    ],
)
def test_flips_of_classes_with_a_direction(about, flip, expected):
    found = check(source(**(dict(names=SIDES) | about)), config(flip=flip))
    assert kinds(found) == ({("flip", "error", "train")} if expected else set())
    if expected:
        assert any(expected in f.message for f in found) and "flipped, 'swipe" in found[0].clips[0].text


def test_flips_are_sound_without_labels():
    assert check(source(names=SIDES), labeled=False) == ()


def test_flips_that_ignore_the_dataset(monkeypatch):
    rule = transforms.train_transform
    monkeypatch.setattr(transforms, "train_transform", lambda *args: rule(*args[:3], True))
    (finding,) = check(source(directional=True))
    assert finding.check == "flip" and "mirroring can change the classes" in finding.message


def test_vertical_flips(monkeypatch):
    def upside_down(x, cfg, rng, flip_ok):
        from vidjax.data.geometry import Geometry

        (clip, g) = transforms.center_crop(x, cfg.size)
        turned = Geometry(g.clip, g.clip, (-1.0, 1.0), (float(cfg.size), 0.0))
        return clip[:, ::-1], g.then(turned)

    monkeypatch.setattr(transforms, "train_transform", upside_down)
    found = check(source(names=("move_up", "move down")))
    assert [f.message for f in found if f.check == "flip"] == [
        "clips of classes with up or down in their name are flipped vertically"
    ]


def test_words_of_class_names():
    names = [
        "SwipeLeft",
        "turn anti-clockwise",
        "LEFT_hand",
        "leftovers",
        "bright",
        "Turning Counter Clockwise",
    ]
    assert directional(names) == [0, 1, 2, 5]
    assert mirrored_words("turn anti-clockwise") == "turn clockwise"
    assert mirrored_words("from left to right") == "from right to left"


def test_classes_with_a_direction_are_read_first():
    names = (*(f"c{i}" for i in range(30)), "wave left")
    some = source(count=31, names=names, frames=12)
    assert {"flip"} == {f.check for f in check(some)}


def test_a_stride_in_frames_of_videos_of_mixed_rates(monkeypatch):
    mixed = source(fps=[15, 30])
    (finding,) = check(mixed)
    assert (finding.check, finding.severity) == ("fps", "warning")
    assert "videos have 15 to 30 fps: clips span 0.33 to 0.67 s" in finding.message
    assert check(mixed, config(target_fps=15.0, stride=2.0)) == ()
    counted = dict(slack=sampling.SLACK)
    monkeypatch.setattr(
        clips, "clock", lambda v, first, total, cfg: counted | {"times": np.arange(total + 1.0) / 15}
    )
    found = check(mixed, config(target_fps=15.0, stride=2.0))
    assert ("fps", "error", "train") in kinds(found)


def test_videos_that_cannot_be_read():
    some = source()
    broken = Record(some[0].video[:500], ClassTarget(0), "broken")
    found = check(ListSource((*some.records[:5], broken), some.class_names))
    assert kinds(found) == {("unreadable", "warning", "train"), ("unreadable", "warning", "val")}
    assert found[0].clips[0].id == "broken" and "not a readable video" in found[0].clips[0].text


def command(*words):
    """Runs the command and returns its exit code."""
    with pytest.raises(SystemExit) as e:
        main(["audit", *map(str, words)])
    return e.value.code


CONFIG = """
def get_config(arg=""):
    options = dict(path=%r, test_fraction=0.4)
    data = dict(name="video_folder", options=options, frames=6, size=32, short_side=36, flip=%s)
    evals = dict(val=dict(type="metrics", clips=2, crops=3))
    return dict(batch=4, steps=1, data=data, evals=evals, model=dict(name="slow_fusion_conv4", tiny=True))
"""


def test_command_reports_flips(tmp_path, capsys):
    for i in range(12):
        (tmp_path / "videos" / SIDES[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / SIDES[i % 2] / f"{i}.mp4").write_bytes(video(i, fps=[25, 50][i // 6]))
    file = tmp_path / "config.py"
    file.write_text(CONFIG % (str(tmp_path / "videos"), True))
    assert command(file, "--draw", tmp_path / "sheet.html") == 1
    out = capsys.readouterr().out
    assert "error [flip] train: flipped clips of classes with a direction" in out
    assert "change: set data.flip=False" in out and "1 error, 1 warning, 0 notes" in out
    assert (tmp_path / "sheet.html").read_text().count("<img") >= 8
    words = "--config.data.flip=False", "--strict", "--json", "--draw", tmp_path / "sheet.png"
    assert command(file, *words) == 1
    row = json.loads(capsys.readouterr().out)
    assert (row["error"], row["warning"]) == (0, 1) and row["findings"][0]["check"] == "fps"
    assert len(row["findings"][0]["clips"][0]["frames"]) == 6
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["kinetics400/slowfast", "synthetic_scenes/multi_label"])
def test_shipped_configs_are_sound(name, capsys):
    assert command(f"{name}:smoke", "--videos", 6) == 0
    assert "0 errors, 0 warnings, 0 notes" in capsys.readouterr().out


def test_invalid_arguments_are_an_error(capsys):
    for words, message in (
        (("--videos", 0), "--videos must be at least 1, not 0"),
        (("--draw", "sheet.gif"), "--draw must end in .png or .html"),
    ):
        assert command("synthetic_motion/any_model", *words) == 2
        assert message in capsys.readouterr().err
