"""Tests of audio decoding: sync with the video, exact windows, resampling, mixing and errors."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from vidjax.data import audio
from vidjax.data.audio import NoTrack, has_audio, read_audio
from vidjax.data.decode import DecodeError, Video

CLICK, TONE, SECONDS = 1.25, 1000, 4  # onset of a tone and its frequency, length of the sound
# container: (format, video codec, audio codec, sampling rate)
CONTAINERS = {
    "mp4": ("mp4", "libx264", "aac", 44100),
    "avi": ("avi", "mpeg4", "pcm_s16le", 44100),
    "mkv": ("matroska", "libx264", "libopus", 48000),
    "mkv aac": ("matroska", "libx264", "aac", 44100),
    "webm": ("webm", "libvpx", "libopus", 48000),
    "mov": ("mov", "libx264", "pcm_s16le", 22050),
    "ts": ("mpegts", "libx264", "aac", 48000),
}
LOSSLESS = ("avi", "mov")


def sine(rate, seconds=SECONDS, onset=CLICK, frequency=TONE, level=0.5):
    """Returns mono sound [n] that is silent before `onset`."""
    t = np.arange(round(seconds * rate)) / rate
    return np.where(t >= onset, level * np.sin(2 * np.pi * frequency * (t - onset)), 0)


def write(kind, sound=None, video_start=0, audio_start=0.0, video_seconds=SECONDS, options=None):
    """Encodes gray frames at 25 fps and sound [n] or [channels, n]; returns the file's contents."""
    container_format, video_codec, audio_codec, rate = CONTAINERS[kind]
    sound = np.atleast_2d(sine(rate) if sound is None else sound)
    file = io.BytesIO()
    with av.open(file, "w", format=container_format, options=options or {}) as container:
        video = container.add_stream(video_codec, rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        layout = "mono" if len(sound) == 1 else "stereo"
        audio = container.add_stream(audio_codec, rate=rate, layout=layout)
        packets = []
        for i in range(round(video_seconds * 25)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), "rgb24")
            frame.pts, frame.time_base = i + video_start, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        samples = np.round(sound * 32767).astype(np.int16)
        resampler = av.AudioResampler(audio.codec_context.format, layout, rate)
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), "s16", layout)
        frame.sample_rate, pts = rate, round(audio_start * rate)
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            fifo.write(part)
        for part in fifo.read_many(audio.codec_context.frame_size or 1024, partial=True):
            part.pts, part.time_base = pts, Fraction(1, rate)
            pts += part.samples
            packets += audio.encode(part)
        packets += audio.encode(None)
        packets = [p for p in packets if p.dts is not None]
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return file.getvalue()


def onset(sound, rate):
    """Returns the time in seconds at which the sound exceeds a fifth of its level."""
    return np.argmax(np.abs(sound) > 0.1) / rate


@pytest.fixture(scope="module")
def files():
    return {kind: write(kind) for kind in CONTAINERS}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_onset_is_in_sync(files, kind, rate):
    sound = read_audio(files[kind], 0, SECONDS, rate)
    assert sound.shape == (SECONDS * rate,) and sound.dtype == np.float32
    assert onset(sound, rate) == pytest.approx(CLICK, abs=0.002 if kind in LOSSLESS else 0.005)
    # Not only the onset but the phase: the tone correlates best with itself unshifted.
    part = slice(2 * rate, 3 * rate)
    phase = np.angle(sound[part] @ np.exp(-2j * np.pi * TONE * (np.arange(rate) / rate - CLICK)))
    assert abs(phase + np.pi / 2) / (2 * np.pi * TONE) < (1e-5 if kind in (*LOSSLESS, "mp4") else 5e-4)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_windows_are_slices_of_the_whole(kind, rate):
    native = CONTAINERS[kind][3]
    t = np.arange(6 * native) / native
    chirp = 0.5 * np.sin(2 * np.pi * (200 * t + 150 * t**2))  # not noise, which AAC decoders randomize
    file = write(kind, chirp * np.minimum(1, 6 - t), video_seconds=6)
    whole = read_audio(file, -1, 8, rate)
    assert np.abs(whole[rate : 7 * rate]).max() > 0.3
    for start, end in ((0, 1), (-0.5, 0.25), (2.3, 2.31), (3.1234, 4.5), (4, 6.5), (5.5, 8)):
        window = read_audio(file, start, end, rate)
        assert len(window) == round((end - start) * rate)
        first = round((start + 1) * rate)
        np.testing.assert_allclose(window, whole[first : first + len(window)], atol=1e-4)


def test_windows_of_long_files_are_found_by_seeking(monkeypatch):
    file = write("mp4", sine(44100, seconds=60, onset=50), video_seconds=1)
    decoded, frames = [], audio._frames

    def counted(*args):
        for frame in frames(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(audio, "_frames", counted)
    assert onset(read_audio(file, 49.5, 51, 16000), 16000) == pytest.approx(0.5, abs=0.005)
    assert len(decoded) < 3 * 44100 / 1024  # of 60 seconds


@pytest.mark.parametrize("late_video, late_audio", [(20, 0.0), (0, 0.6), (10, 0.2)])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_streams_that_start_at_different_times(kind, late_video, late_audio):
    native = CONTAINERS[kind][3]
    file = write(kind, sine(native), late_video, late_audio)
    with Video(file) as video:
        assert video.num_frames == 100 and video.times[0] == 0
    sound = read_audio(file, -1, 3, 16000)
    expected = 1 + CLICK + late_audio - late_video / 25
    assert onset(sound, 16000) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("kind", ["mp4", "mov"])
@pytest.mark.parametrize("first_frame, audio_start", [(0, -0.3), (-5, 0.0), (-5, -0.3)])
def test_edit_lists(kind, first_frame, audio_start):
    """What starts before time 0 is cut by the edit list of its track, not played earlier."""
    file = write(kind, None, first_frame, audio_start)
    with Video(file) as video:
        assert video.num_frames == 100 + first_frame
    assert onset(read_audio(file, -1, 3, 16000), 16000) == pytest.approx(1 + CLICK + audio_start, abs=0.005)


@pytest.mark.parametrize("kind", ["mp4", "mkv aac", "mov", "avi"])
@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_clicks_at_known_samples(kind, rate):
    """Clicks of one sample stay within a sample of their time, also beyond the priming of AAC."""
    native = CONTAINERS[kind][3]
    at = np.array([0.0125, 0.5, 1.25, 2.0, 3.9])
    clicks = np.zeros(SECONDS * native)
    clicks[np.round(at * native).astype(int)] = 1
    whole = read_audio(write(kind, np.clip(clicks, 0, 0.99)), 0, SECONDS, rate)
    for time in at:
        near = slice(max(0, int((time - 0.01) * rate)), int((time + 0.01) * rate))
        peak = (near.start + np.abs(whole[near]).argmax()) / rate
        assert peak == pytest.approx(time, abs=1 / min(rate, native))


def tracks(languages, rate=16000):
    """Encodes one tone per language, the i-th at 500 (i + 1) Hz, beside gray frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        video = container.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = 48, 48, "gray"
        sounds = [container.add_stream("pcm_s16le", rate=rate, layout="mono") for _ in languages]
        for sound, language in zip(sounds, languages, strict=True):
            sound.metadata["language"] = language
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 48), np.uint8), "gray")))
        for i, sound in enumerate(sounds):
            tone = sine(rate, 1, onset=0, frequency=500 * (i + 1))
            frame = av.AudioFrame.from_ndarray((tone[None] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate = rate
            container.mux(sound.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


def test_tracks_are_chosen_by_number_or_language():
    file = tracks(["eng", "fre", "fre"])

    def heard(track):
        return np.abs(np.fft.rfft(read_audio(file, 0, 1, 16000, track))).argmax()

    assert [heard(t) for t in (0, 1, 2, "eng", "fre", None)] == [500, 1000, 1500, 500, 1000, 500]
    assert has_audio(file) and has_audio(file, 2) and has_audio(file, "eng")
    for track, message in (
        (3, "no audio track 3, the last of 3 is 2"),
        ("ger", "no audio track in the language 'ger', only in eng, fre, fre"),
    ):
        assert not has_audio(file, track)
        with pytest.raises(NoTrack, match=message):
            read_audio(file, 0, 1, 16000, track)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_frequency_and_amplitude(rate):
    sound = read_audio(write("avi", sine(44100, onset=0, frequency=440)), 0, SECONDS, rate)
    inner = sound[rate // 10 : -rate // 10]
    t = np.arange(len(inner)) / rate + 0.1
    np.testing.assert_allclose(inner, 0.5 * np.sin(2 * np.pi * 440 * t), atol=2e-3)


def test_downsampling_removes_frequencies_above_nyquist():
    sound = read_audio(write("avi", sine(44100, onset=0, frequency=6000)), 1, 2, 8000)
    assert np.abs(sound).max() < 0.01


def test_channels_are_averaged():
    t = sine(44100, onset=0)
    sound = read_audio(write("avi", np.stack([t, 0.5 * t])), 0, SECONDS, 44100)
    np.testing.assert_allclose(sound, 0.75 * t, atol=1e-4)
    assert np.abs(read_audio(write("avi", np.stack([t, -t])), 0, 1, 44100)).max() < 1e-4


def test_zeros_outside_the_track(files):
    sound = read_audio(files["avi"], -1, SECONDS + 1, 44100)
    assert len(sound) == (SECONDS + 2) * 44100
    assert not sound[:44100].any() and not sound[(SECONDS + 1) * 44100 :].any()
    np.testing.assert_allclose(sound[44100:-44100], sine(44100), atol=1e-4)
    assert not read_audio(files["mp4"], 100, 101, 16000).any()
    assert read_audio(files["mp4"], 1, 1, 16000).shape == (0,)


def test_sample_count_is_exact(files):
    for start, end, rate in ((0.1, 1.37, 16000), (1 / 3, 2 / 3, 22050), (2.0, 2.00001, 16000)):
        assert len(read_audio(files["mp4"], start, end, rate)) == round((end - start) * rate)


def test_a_replaced_file_is_read_anew(files, tmp_path):
    path = tmp_path / "sound.mkv"
    for seconds in (0.4, 0.0):
        path.write_bytes(write("mkv aac", None, 0, seconds))
        assert onset(read_audio(path, 0, 3, 16000), 16000) == pytest.approx(CLICK + seconds, abs=0.005)


def test_file_without_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((sine(16000)[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
    assert onset(read_audio(path, 0, SECONDS, 16000), 16000) == pytest.approx(CLICK, abs=1e-3)


def test_errors_name_the_file(files, tmp_path):
    silent, text = tmp_path / "silent.mp4", tmp_path / "text.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    assert not has_audio(str(silent)) and has_audio(files["mp4"])
    with pytest.raises(NoTrack) as error:
        read_audio(str(silent), 0, 1, 16000)
    assert str(error.value) == f"{silent}: no audio track"
    text.write_text("no video")
    for path in (text, tmp_path / "missing.mp4"):
        with pytest.raises(DecodeError, match=f"^{path}: cannot decode the audio [^\n]*$"):
            read_audio(str(path), 0, 1, 16000)
        with pytest.raises(DecodeError, match=f"^{path}: not a readable file [^\n]*$"):
            has_audio(str(path))
    with pytest.raises(DecodeError, match="<500 bytes>"):
        read_audio(files["mp4"][:500], 0, 1, 16000)
    with pytest.raises(ValueError, match="precedes"):
        read_audio(files["mp4"], 2, 1, 16000)


@pytest.mark.parametrize("kind", ["avi", "mkv", "ts"])
def test_truncated_file_is_silent_after_the_cut(files, kind):
    whole = read_audio(files[kind], 0, SECONDS, 16000)
    cut = read_audio(files[kind][: len(files[kind]) * 2 // 3], 0, SECONDS, 16000)
    assert cut.shape == whole.shape
    np.testing.assert_allclose(cut[: 2 * 16000], whole[: 2 * 16000], atol=1e-4)
    assert not cut[int(3.5 * 16000) :].any()


def test_corrupt_audio_raises(files):
    """Overwrites the payload of every AAC packet of an MP4, whose index remains intact."""
    damaged = bytearray(files["mp4"])
    with av.open(io.BytesIO(files["mp4"])) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                damaged[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    with pytest.raises(DecodeError, match=r"^<\d+ bytes>: [^\n]*audio[^\n]*$"):
        read_audio(bytes(damaged), 0, 1, 16000)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_random_corruption_returns_samples_or_raises_decode_error(files, kind):
    rng = np.random.default_rng(0)
    for _ in range(6):
        damaged = np.frombuffer(files[kind], np.uint8).copy()
        damaged[rng.integers(len(damaged), size=rng.integers(1, 60))] = rng.integers(256)
        try:
            sound = read_audio(damaged.tobytes(), 1, 2, 16000)
        except DecodeError as error:
            assert "\n" not in str(error)
        else:
            assert sound.shape == (16000,)
