"""Tests that the ground truth of synthetic_scenes matches its files, and that nothing gives it away."""

import dataclasses
import io
import json
import pickle
import re

import av
import cv2
import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vidjax.data import targets
from vidjax.data.audio import read_audio
from vidjax.data.datasets import load_source
from vidjax.data.datasets.synthetic_scenes import encode, frame_times, language, render, sound
from vidjax.data.datasets.synthetic_scenes.script import CLASSES, COLORS, KINDS, Event, Scene, make_scene
from vidjax.data.decode import Video
from vidjax.errors import UserError

FPS, SIZE, RATE = 12, 64, 16000
SMALL = {"size": 32, "seconds": 3.0, "longest": 4.5, "fps": 8, "train": 240, "val": 1, "test": 2}
K = len(CLASSES)
PAIRS = {"collide", "part"}  # classes of two actors
MULTIPLE = ("first", "counterfactual", "order", "exists")
# Words of the descriptions of each class, written independently of the grammar.
WORDS = {
    r"\bright\b": "move_right",
    r"\bleft\b": "move_left",
    r"\bdown(ward)?\b": "move_down",
    r"\bup(ward)?\b": "move_up",
    r"\bclockwise\b": "spin_clockwise",
    r"\bcounterclockwise\b": "spin_counterclockwise",
    r"\bgrows\b|\bbigger\b": "grow",
    r"\bshrinks\b|\bsmaller\b": "shrink",
    r"\bfades in\b|\bappears\b": "appear",
    r"\bfades out\b|\bdisappears\b": "disappear",
    r"\binto (each|another)\b": "collide",
    r"\baway from\b": "part",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(0, "train", i, FPS) for i in range(48)]


@pytest.fixture(scope="module")
def files(scenes):
    """Returns encoded scenes, one of each class."""
    return [encode(scene, SIZE, FPS) for scene in scenes[:K]]


def records(cache, target, split="train"):
    return load_source("synthetic_scenes", split, path=cache, target=target, **SMALL)


def names(scene):
    return [f"{list(COLORS)[o.color]} {KINDS[o.kind]}" for o in scene.objects]


def recolored(scene, i):
    """Returns the scene with another color of object `i`, in which only its visible pixels differ."""
    color = next(k for k in range(len(COLORS)) if k not in {o.color for o in scene.objects})
    objects = list(scene.objects)
    objects[i] = dataclasses.replace(objects[i], color=color)
    return dataclasses.replace(scene, objects=tuple(objects))


def in_front(scene, i):
    """Returns the scene with object `i` in front of the others."""
    order = [k for k in range(len(scene.objects)) if k != i] + [i]
    events = (
        dataclasses.replace(e, actors=tuple(sorted(order.index(a) for a in e.actors))) for e in scene.events
    )
    return dataclasses.replace(
        scene, objects=tuple(scene.objects[k] for k in order), events=tuple(sorted(events))
    )


def difference(a, b, times, size=SIZE):
    """Returns the absolute difference of two scenes' frames, [T, H, W]."""
    pair = (np.stack(list(render.frames(s, times, size))).astype(float) for s in (a, b))
    return np.abs(np.subtract(*pair)).sum(-1)


def test_generation_is_deterministic(tmp_path):
    tiny = {"size": 32, "seconds": 3.0, "fps": 4, "train": 3, "val": 1, "test": 3}

    def load(target, where="a", split="train", **options):
        source = load_source(
            "synthetic_scenes", split, path=tmp_path / where, target=target, **tiny, **options
        )
        return source, [(r.encoded(), r.target, r.id) for r in source]

    for target in (targets.SegmentsTarget, targets.QuestionTarget):
        (first, a), (second, b), (test, c), (other, d) = (
            load(target),
            load(target, "b"),
            load(target, split="test"),
            load(target, seed=1),
        )
        assert a == b and first.fingerprint == second.fingerprint
        assert len({first.fingerprint, test.fingerprint, other.fingerprint}) == 3
        assert not {row[0] for row in a} & {row[0] for row in c + d}
    tracks = [load(targets.TracksTarget, where)[1][1][1].tracks.read() for where in ("a", "b")]
    for one, two in zip(*tracks):
        assert all(np.array_equal(x, y) for x, y in zip(one, two))


def test_files_hold_the_rendered_frames_and_sound(scenes, files):
    for scene, file in zip(scenes[:4], files):
        with av.open(io.BytesIO(file)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert audio.rate == RATE and audio.channels == 1
            assert all(packet.is_keyframe for packet in container.demux(video) if packet.size)
        with Video(file) as video:
            assert video.num_frames == 10 * FPS and video.fps == FPS and video.duration == scene.seconds
            np.testing.assert_allclose(video.times, frame_times(scene, FPS), atol=1e-6)
            decoded = video.frames(range(video.num_frames)).astype(int)
        rendered = np.stack(list(render.frames(scene, frame_times(scene, FPS), SIZE)))
        assert np.abs(decoded - rendered).mean() < 4  # H.264 with halved color resolution
        mixture = sound.stems(scene, RATE).sum(0)
        error = read_audio(file, 0, scene.seconds, RATE) - mixture
        assert (mixture**2).sum() > 1000 * (error**2).sum()
        assert np.abs(mixture).max() < 1


def test_long_videos(tmp_path):
    options = {"size": 32, "seconds": 120.0, "fps": 4, "train": 1, "val": 1, "test": 1}
    source = load_source("synthetic_scenes", "train", path=tmp_path, target=targets.SegmentsTarget, **options)
    with Video(source[0].encoded()) as video:
        assert video.num_frames == 480 and video.duration == source[0].target.duration == 120
    starts = np.array([s.start for s in source[0].target.segments])
    assert len(starts) > 70 and np.histogram(starts, 4, (0, 120))[0].min() > 10


def test_sound_starts_with_the_event(scenes, files):
    for scene, file in zip(scenes[::2], files[::2]):
        first = scene.events[0]
        heard = np.abs(read_audio(file, 0, scene.seconds, RATE)) > 0.02
        assert abs(heard.argmax() / RATE - first.start) < 1 / FPS, first
        still = encode(dataclasses.replace(scene, events=()), SIZE, FPS)
        with Video(file) as video, Video(still) as other:
            frames = np.arange(round(first.end * FPS))
            changed = (video.frames(frames) != other.frames(frames)).any((1, 2, 3))
        # A frame that shows the very start of an event may be identical.
        assert 0 <= changed.argmax() / FPS - first.start < 2 / FPS, first


def test_each_object_sounds_only_during_its_events(scenes):
    for scene in scenes[:K]:
        stems = sound.stems(scene, RATE)
        times = np.arange(stems.shape[1]) / RATE
        for i, stem in enumerate(stems):
            busy = np.zeros(len(times), bool)
            for e in scene.events:
                if i in e.actors:
                    inside = (e.start - 1 / RATE < times) & (times < e.end + 1 / RATE)
                    busy |= inside
                    spectrum = np.abs(np.fft.rfft(stem[inside] * np.hanning(inside.sum())))
                    # Harmonics are multiples of the pitch of the class.
                    peak = spectrum.argmax() * RATE / inside.sum() / sound.pitch(e.label)
                    assert abs(peak - round(peak)) < 0.02 and round(peak) in (1, 2)
            assert not stem[~busy].any() and (np.abs(stem[busy]) > 0.01).mean() > 0.5
        halved = sound.stems(scene, RATE // 2)
        assert halved.shape[1] == stems.shape[1] // 2
        assert np.abs(halved[:, 100:-100] - stems[:, 200:-200:2]).max() < 0.05


def test_kinds_have_distinct_timbres(scenes):
    event = Event(1.0, 2.0, 0, (0,))
    spectra = []
    for kind in range(len(KINDS)):
        o = dataclasses.replace(scenes[0].objects[0], kind=kind)
        scene = dataclasses.replace(scenes[0], objects=(o,), events=(event,))
        spectrum = np.abs(np.fft.rfft(sound.stems(scene, RATE)[0, RATE : 2 * RATE]))
        spectra.append(spectrum / np.linalg.norm(spectrum))
    similarity = np.array(spectra) @ np.array(spectra).T
    assert similarity[~np.eye(len(KINDS), dtype=bool)].max() < 0.95


def test_boxes_and_visibility_match_the_pixels(scenes):
    checked = 0
    for scene in scenes[:K]:
        times = frame_times(scene, FPS)[::5]
        boxes, visible = render.boxes(scene, times, SIZE), render.visibility(scene, times, SIZE)
        for i in range(len(scene.objects)):
            changed = difference(scene, recolored(scene, i), times)
            front = in_front(scene, i)
            whole = dataclasses.replace(front, events=tuple(e for e in front.events if e.label not in (8, 9)))
            most = difference(whole, recolored(whole, len(scene.objects) - 1), times)
            np.testing.assert_allclose(changed.sum((1, 2)) / most.sum((1, 2)), visible[i], atol=0.04)
            for t in np.flatnonzero(visible[i] > 0.999):
                row, column = np.nonzero(changed[t] > 0.25 * changed[t].max())
                found = column.min(), row.min(), column.max() + 1, row.max() + 1
                np.testing.assert_allclose(found, boxes[i, t], atol=1.3)
                checked += 1
        assert ((boxes >= 0) & (boxes <= SIZE)).all()
    assert checked > 500


def test_tracks_agree_with_the_segments(scenes):
    from vidjax.data.datasets.synthetic_scenes import SceneTracks

    for scene in scenes[:4]:
        tracks = SceneTracks(scene, SIZE, FPS).read()
        acting = np.any([t.actions for t in tracks], 0)
        for k, time in enumerate(tracks[0].times):
            now = {e.label for e in scene.events if e.start <= time < e.end}
            assert set(np.flatnonzero(acting[k])) == now
        assert all((t.actions.sum(1) <= 1).all() for t in tracks)
        assert [t.label for t in tracks] == [o.kind for o in scene.objects]


def owners(scene, times):
    """Returns the front object at each pixel by its color alone, -1 for the background, [T, H, W]."""
    masks = [difference(scene, recolored(scene, i), times) for i in range(len(scene.objects))]
    full = np.array([m.max() for m in masks])[:, None, None, None]
    shares = np.array(masks) / full
    return np.where(shares.max(0) > 0.35, shares.argmax(0), -1)


def test_flow_and_occlusion_match_the_pixels(scenes):
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)
    errors = {"visible": [], "occluded": [], "unmoved": []}
    certain, wrong = np.zeros(2, int), np.zeros(2, int)
    for scene in scenes[:K]:
        solid = tuple(e for e in scene.events if e.label not in (8, 9))  # brightness does not change
        scene = dataclasses.replace(scene, events=solid)
        times = frame_times(scene, FPS)[10:100:3]
        vectors, occluded = render.flow(scene, times, SIZE)
        assert vectors.shape == (29, SIZE, SIZE, 2) and occluded.shape == (29, SIZE, SIZE)
        frames = np.stack(list(render.frames(scene, times, SIZE))).astype(np.float32)
        owner = owners(scene, times)
        for t in range(len(vectors)):
            to = grid + vectors[t]
            warped = cv2.remap(frames[t + 1], to[..., 0], to[..., 1], cv2.INTER_LINEAR)
            error = np.abs(warped - frames[t]).mean(-1)
            inside = ((to >= 0) & (to <= SIZE - 1)).all(-1)
            errors["visible"].append(error[~occluded[t] & inside])
            errors["occluded"].append(error[occluded[t] & inside])
            moving = ~occluded[t] & inside & (np.hypot(*vectors[t].transpose(2, 0, 1)) > 2)
            errors["unmoved"].append(np.abs(frames[t + 1] - frames[t]).mean(-1)[moving])
            # Where all pixels around the one that a point moves to agree on whether it is hidden.
            x, y = np.clip(np.rint(to).astype(int), 0, SIZE - 1).transpose(2, 0, 1)
            near = [
                np.roll(owner[t + 1], (a - 1, b - 1), (0, 1))[y, x] > owner[t] for a, b in np.ndindex(3, 3)
            ]
            for answer in (0, 1):
                sure = inside & np.all([n == answer for n in near], 0)
                certain[answer] += sure.sum()
                wrong[answer] += (sure & (occluded[t] != answer)).sum()
            assert occluded[t][(to < -0.5).any(-1) | (to > SIZE - 0.5).any(-1)].all()
    visible, hidden, unmoved = (np.concatenate(errors[k]) for k in errors)
    assert visible.mean() < 1.5 and np.percentile(visible, 99) < 20
    assert hidden.mean() > 15 * visible.mean() and len(hidden) > 1000
    assert unmoved.mean() > 15 * visible.mean()
    assert certain.min() > 1000 and (wrong <= 0.001 * certain).all()


def test_events_look_like_their_class():
    for label, name in enumerate(CLASSES):
        scene = next(s for i in range(K) if (s := make_scene(3, "val", i, FPS)).main.label == label)
        event = dataclasses.replace(scene.main, start=2.0, end=3.0)
        scene = dataclasses.replace(scene, events=(event,))
        x, y, radius, angle, opacity = scene.poses(np.array([2.3, 2.7]))[event.actors[0]].T
        positions = scene.poses(np.array([2.3, 2.7]))[list(event.actors), :, :2]
        distance = np.hypot(*(positions[0] - positions[-1]).T)
        observed = {
            "move_right": x[1] - x[0],
            "move_down": y[1] - y[0],
            "spin_clockwise": angle[1] - angle[0],
            "grow": radius[1] - radius[0],
            "appear": opacity[1] - opacity[0],
            "collide": distance[0] - distance[-1] if name in PAIRS else 0.0,
        }
        pair = CLASSES[label - label % 2]
        assert np.sign(observed[pair]) == (-1 if label % 2 else 1), name
        assert all(abs(v) < 1e-9 for k, v in observed.items() if k != pair and name not in PAIRS), name


def test_positive_angles_turn_clockwise():
    scene = make_scene(0, "train", 0, FPS)

    def mask(angle):
        o = dataclasses.replace(scene.objects[0], x=0.5, y=0.5, angle=angle)
        alone = dataclasses.replace(scene, objects=(o,), events=())
        other = dataclasses.replace(
            alone, objects=(dataclasses.replace(o, color=(o.color + 1) % len(COLORS)),)
        )
        return difference(alone, other, np.zeros(1))[0] > 60

    turned = np.rot90(mask(0.1), -1)
    assert (turned != mask(0.35)).sum() < 0.1 * turned.sum() < (turned != mask(0.85)).sum()


def test_paired_classes_consist_of_the_same_frames(scenes):
    for label in range(0, K, 2):
        scene = scenes[label]
        one = dataclasses.replace(scene.main, start=2.0, end=6.0)
        other = dataclasses.replace(one, label=label + 1)
        times = np.linspace(2.0, 6.0, 50)[1:-1]
        forward, backward = (dataclasses.replace(scene, events=(e,)).poses(times) for e in (one, other))
        turns = np.array([1, 1, 1, 0, 1])  # full turns are equal
        np.testing.assert_allclose(forward * turns, backward[:, ::-1] * turns, atol=1e-9)
        turned = (forward - backward[:, ::-1])[..., 3]
        np.testing.assert_allclose(turned, np.rint(turned), atol=1e-9)


def classes_of(text):
    return [name for pattern, name in WORDS.items() if re.search(pattern, text)]


def clauses(text, scene):
    """Parses "the A does something" and "the A and the B do something" to (names, class), in order of time.

    A clause after "before" happens after the next one.
    """
    name = r"the (?:{})".format("|".join(names(scene)))
    found = re.split(rf"(?={name}(?: and {name})? [a-z])", text, flags=re.IGNORECASE)
    # A pair is split twice: glue it together.
    parts = []
    for part in found[1:]:
        if parts and parts[-1].endswith(" and ") and not classes_of(parts[-1]):
            parts[-1] += part
        else:
            parts.append(part)
    starts = [found[0], *parts[:-1]]
    result = []
    for before, part in zip(starts, parts):
        (label,) = classes_of(part)
        actors = frozenset(n for n in names(scene) if n.lower() in part.lower())
        result.append((bool(re.search(r"before $", before, re.IGNORECASE)), actors, label))
    for k in range(len(result) - 1):
        if result[k][0]:
            result[k], result[k + 1] = result[k + 1], result[k]
    return [row[1:] for row in result]


def sentences_of(scene, events):
    return [(frozenset(names(scene)[i] for i in e.actors), CLASSES[e.label]) for e in events]


def test_captions_are_true(scenes):
    for scene in scenes:
        longest = sorted(sorted(scene.events, key=lambda e: -(e.end - e.start))[:3])
        texts = language.captions(scene)
        assert len(set(texts)) == len(texts) >= 3
        for text in texts:
            assert clauses(text, scene) == sentences_of(scene, longest), text
        for event in scene.events:
            segment = language.captions(scene, [event])
            assert len(set(segment)) == len(segment) >= 3
            assert all(clauses(text, scene) == sentences_of(scene, [event]) for text in segment)


def test_queries_match_their_moments(scenes):
    for scene in scenes:
        covered = []
        for target in language.queries(scene):
            ((actors, label),) = clauses(target.query, scene)
            rows = zip(sentences_of(scene, scene.events), scene.events)
            expected = tuple((e.start, e.end) for row, e in rows if row == (actors, label))
            assert target.moments == expected and target.duration == scene.seconds
            covered += target.moments
        assert sorted(covered) == [(e.start, e.end) for e in scene.events]


def test_answers_follow_from_the_tracks(scenes):
    """Answers every question from the action labels per frame."""
    from vidjax.data.datasets.synthetic_scenes import SceneTracks

    kinds = set()
    solo = np.array([name not in PAIRS for name in CLASSES])
    for scene in scenes:
        tracks = dict(zip(names(scene), (t.actions for t in SceneTracks(scene, SIZE, FPS).read())))

        def first(actions):
            """Returns the frame and class of the first action that objects do on their own."""
            frame = (actions & solo).any(1).argmax()
            return frame, CLASSES[(actions[frame] & solo).argmax()]

        for q in language.questions(scene):
            kinds.add(q.kind)
            assert not q.options or (q.options.count(q.answer) == 1 and len(set(q.options)) == len(q.options))
            mentioned = [n for n in tracks if n in q.question]
            if q.kind == "count":
                busy = np.concatenate([[False], tracks[mentioned[0]].any(1)])
                assert q.answer == str((np.diff(busy.astype(int)) > 0).sum())
            elif q.kind == "first":
                assert classes_of(q.answer) == [first(tracks[mentioned[0]])[1]]
            elif q.kind == "counterfactual":
                left = [first(a) for n, a in tracks.items() if n != mentioned[0] and (a & solo).any()]
                assert classes_of(q.answer) == [min(left)[1]]
                asked = first(tracks[mentioned[0]])
                assert asked < min(left)  # so the answer is not what happens first in the video
            elif q.kind == "order":
                frames = {}
                for option in q.options:
                    ((actors, label),) = clauses(option, scene)
                    together = np.all([tracks[n][:, CLASSES.index(label)] for n in actors], 0)
                    frames[option] = together.argmax()
                assert q.answer == min(frames, key=frames.get)
            else:
                (label,) = classes_of(q.question)
                assert q.answer == ("yes" if tracks[mentioned[0]][:, CLASSES.index(label)].any() else "no")
    assert kinds == {*MULTIPLE, "count"}


@pytest.mark.parametrize("kind", MULTIPLE)
def test_questions_cannot_be_answered_without_the_video(kind):
    """A linear model of the words of question and options is at chance."""
    rows, right, group, options = [], [], [], []
    for i in range(1000):
        for q in language.questions(make_scene(1, "train", i, FPS)):
            if q.kind == kind and q.options:
                for place, option in enumerate(q.options):
                    words = {f"option {w}": 1 for w in re.findall(r"\w+", option)}
                    words |= {f"question {w} {place} {option[:3]}": 1 for w in re.findall(r"\w+", q.question)}
                    rows.append(words | {f"all {option}": 1, f"place {place}": 1})
                    right.append(option == q.answer)
                    group.append(i)
                options.append(len(q.options))
    x, right, group = DictVectorizer().fit_transform(rows), np.array(right), np.array(group)
    model = LogisticRegression(C=0.1, max_iter=200).fit(x[group < 600], right[group < 600])
    scores = model.decision_function(x)
    ends = np.cumsum(options)
    test = [(s, e) for s, e in zip(ends - options, ends) if group[s] >= 600]
    correct = np.mean([right[s:e][scores[s:e].argmax()] for s, e in test])
    chance = 1 / options[0]
    assert len(test) > 300
    assert abs(correct - chance) < 3.5 * np.sqrt(chance * (1 - chance) / len(test)), correct


def shortcuts(record):
    """Returns features of a file that do not require time: length, size, and statistics of still frames."""
    data = record.encoded()
    with Video(data) as video:
        frames = video.frames([0, video.num_frames // 2, video.num_frames - 1]).astype(float)
        length = video.duration
    colors = frames.mean((1, 2)).ravel(), frames.std((1, 2)).ravel()
    cells = cv2.resize(frames[1], (4, 4), interpolation=cv2.INTER_AREA).ravel()
    return np.concatenate([[length, len(data), len(data) / length], *colors, cells])


def predictions(features, labels, **options):
    """Returns the cross-validated predictions of logistic regression, one against the rest."""
    model = OneVsRestClassifier(LogisticRegression(C=0.1, solver="liblinear"))
    return cross_val_predict(make_pipeline(StandardScaler(), model), features, labels, cv=5, **options)


def accuracy(features, labels):
    return (predictions(features, labels) == labels).mean()


def test_no_shortcut_predicts_the_classes(cache):
    source = records(cache, targets.ClassTarget)
    features = np.stack([shortcuts(record) for record in source])
    labels = np.array([record.target.label for record in source])
    n = len(labels)
    assert (np.bincount(labels) == n // K).all()
    assert len({tuple(row) for row in features[:, :2]}) == len(set(features[:, 0]))  # one size per duration
    assert accuracy(features, labels) < 1 / K + 3 * np.sqrt((1 / K) * (1 - 1 / K) / n)

    present = np.array(
        [np.isin(np.arange(K), r.target.labels) for r in records(cache, targets.MultiLabelTarget)]
    )
    assert (present.sum(1) == 4).all()
    scores = [predictions(features, y, method="decision_function") for y in present.T]
    areas = [roc_auc_score(y, score) for y, score in zip(present.T, scores)]
    # The area under the curve of random scores has variance (n + 1) / (12 positives negatives).
    deviation = np.sqrt((n + 1) / (12 * present.sum(0) * (~present).sum(0)))
    assert np.mean(areas) < 0.5 + 3 * deviation.mean() / np.sqrt(K)
    assert (np.array(areas) < 0.5 + 4 * deviation).all()

    # The same features do predict the length, and what is visible.
    color = np.array([s.objects[-1].color for s in map(source.scene, range(n))])
    chance = 1 / len(COLORS)
    assert accuracy(features, features[:, 0] > 3.75) > 0.9
    assert accuracy(features, color) > chance + 3 * np.sqrt(chance * (1 - chance) / n)


@pytest.mark.parametrize(
    "target",
    [
        targets.ClassTarget,
        targets.MultiLabelTarget,
        targets.SegmentsTarget,
        targets.TracksTarget,
        targets.FlowTarget,
        targets.AudioTarget,
        targets.TextTarget,
        targets.DenseTextTarget,
        targets.QuestionTarget,
        targets.MomentsTarget,
    ],
)
def test_records_are_light(cache, target):
    source = pickle.loads(pickle.dumps(records(cache, target, "test")))
    several = target in (targets.QuestionTarget, targets.MomentsTarget)
    assert source.target is target and (len(source) > 5 if several else len(source) == 2)
    assert len({r.id for r in source}) == len(source) and {r.group for r in source} == {
        "test-000000",
        "test-000001",
    }
    record = source[1]
    copy = pickle.dumps(record)
    assert len(copy) < 4000 and pickle.loads(copy) == record
    assert len(record.encoded()) > 10_000
    value = record.target
    assert type(value) is target
    if target in (targets.TracksTarget, targets.FlowTarget, targets.AudioTarget):
        with pytest.raises(UserError, match=target.__name__):
            targets.to_json(value)
    else:
        assert targets.from_json(json.loads(json.dumps(targets.to_json(value)))) == value


def test_references_give_the_ground_truth_of_the_file(cache):
    tracks, flow, audio = (
        records(cache, t)[5] for t in (targets.TracksTarget, targets.FlowTarget, targets.AudioTarget)
    )
    with Video(tracks.encoded()) as video:
        read = tracks.target.read((32, 32))
        assert all(t.boxes.shape == (video.num_frames, 4) for t in read)
        np.testing.assert_allclose(read[0].times, video.times, atol=1e-6)
        vectors, occluded = flow.target.motion.read(video.times[[3, 5]])
        assert vectors.shape == (1, 32, 32, 2) and occluded.dtype == bool
        duration = video.duration
    stems = audio.target.sources.read(RATE)
    heard = read_audio(audio.encoded(), 0, duration, RATE)
    assert len(stems) == len(audio.target.labels) == 3 and len({*audio.target.labels}) == 3
    assert ((stems.sum(0) - heard) ** 2).sum() < 0.001 * (heard**2).sum()


def test_invalid_options_are_one_line_errors(tmp_path):
    for split, options, message in [
        ("trian", {}, "unknown split .* did you mean train"),
        ("train", {"target": Scene}, "unknown target of synthetic_scenes 'Scene'"),
        ("train", {"size": 33}, "even"),
        ("train", {"seconds": 2.0}, "got seconds=2.0"),
        ("train", {"seconds": 9.0, "longest": 8.0}, "longest=8.0"),
        ("train", {"test": 0}, "1 to 10,000,000 scenes"),
        ("train", {"path": "/dev/null/x"}, "cannot write to /dev/null/x"),
    ]:
        with pytest.raises(UserError, match=message):
            load_source("synthetic_scenes", split, **({"path": tmp_path} | options))
