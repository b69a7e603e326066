"""What every official dataset must do, tested on small folders in its published form."""

import functools
import io
import os

import av
import numpy as np
import pytest

from vidjax.config_schema import schema
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import card, load_source
from vidjax.data.targets import problem, to_json
from vidjax.errors import UserError


@functools.cache
def clip(seconds=1.0, fps=10, container="mp4", sound=False):
    """Returns an encoded video of noise."""
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    with av.open(
        file, "w", format={"avi": "avi", "webm": "webm", "mkv": "matroska"}.get(container, "mp4")
    ) as out:
        codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(container, "libx264")
        video = out.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        audio = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for _ in range(round(seconds * fps)):
            image = rng.integers(256, size=(32, 48, 3), dtype=np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        if audio:
            samples = np.zeros((1, round(seconds * 16000)), np.float32)
            part = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            part.sample_rate = 16000
            out.mux(audio.encode(part))
            out.mux(audio.encode(None))
        out.mux(video.encode(None))
    return file.getvalue()


def write(root, files):
    """Writes files given as {path: text or bytes, or None for a video of one second}."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        content = clip(container=os.fspath(path).rpartition(".")[2]) if content is None else content
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def check(name, split, target=None, **options):
    """Loads a split, reads a clip of each record, and returns the source."""
    about = card(name)
    assert about.title and about.paper and about.metric and about.layout and about.targets
    source = load_source(name, split, target, **options)
    assert source.target is (target or about.targets[0])
    assert len({r.id for r in source}) == len(source) > 0
    assert source.fingerprint == load_source(name, split, target, **options).fingerprint
    cfg = schema().data
    cfg.update(frames=2, size=16, short_side=16, target_fps=None)
    for record in source:
        assert problem(record.target) is None and to_json(record.target)
        (view,) = ClipReader(cfg).views(record, 1, 1)
        assert view.inputs["rgb"].shape == (2, 16, 16, 3)
    return source


def refuses(name, split, message, **options):
    """Checks that loading a split is a `UserError` of one line."""
    with pytest.raises(UserError, match=message) as e:
        load_source(name, split, **options)
    assert "\n" not in str(e.value)
