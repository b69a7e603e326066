"""Fuzzing: damaged files end as frames or as `DecodeError`, without a crash, a stall or a leak.

Each mutant of a fixture is determined by its number, so `check(files, number)` reproduces a failure.
"""

import collections
import multiprocessing
import pathlib
import re

import av
import numpy as np
import pytest

from tests.data import test_audio, test_decode
from tests.slow.memory import resident
from vidjax.data.audio import read_audio
from vidjax.data.decode import DecodeError, Video

pytestmark = pytest.mark.slow

MUTANTS, WARM = 3000, 500  # memory is compared between these two
TIMEOUT = 60  # seconds per mutant
REAL = pathlib.Path(__file__).parents[3] / "shared/data/videos"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"requires the real videos in {REAL}")


def generated(folder):
    """Writes the clips of the decoding and audio tests; returns their contents by name."""
    files = {f"audio.{kind.replace(' ', '.')}": test_audio.write(kind) for kind in test_audio.CONTAINERS}
    for name, options in test_decode.KINDS.items():
        files[name] = test_decode.write(folder / name, **options).read_bytes()
    return files


def real(folder):
    return {path.name: path.read_bytes() for path in sorted(REAL.iterdir()) if path.stat().st_size}


def pieces(data, rng):
    """Returns two positions in ascending order, at most 4 KB apart."""
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.integers(1, 4096)))


def flip(data, other, rng):
    at = rng.integers(len(data), size=rng.integers(1, 200))
    data[at] = rng.integers(256, size=len(at))
    return data


def flip_bits(data, other, rng):
    data[rng.integers(len(data), size=rng.integers(1, 20))] ^= np.uint8(1 << rng.integers(8))
    return data


def damage_header(data, other, rng):
    """Overwrites bytes near the beginning or the end, where containers keep their tables."""
    part = data[:2048] if rng.integers(2) else data[-2048:]
    at = rng.integers(len(part), size=rng.integers(1, 16))
    part[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)], len(at))
    return data


def damage_name(data, other, rng):
    """Overwrites bytes around a four-letter name: a box of MP4, a chunk of AVI."""
    names = [m.start() for m in re.finditer(rb"[a-z0-9]{4}", data.tobytes())]
    if names:
        start = max(0, int(rng.choice(names)) - 8)
        part = data[start : start + 24]
        part[rng.integers(len(part), size=rng.integers(1, 4))] = rng.integers(256)
    return data


def truncate(data, other, rng):
    return data[: rng.integers(1, len(data) + 1)]


def remove(data, other, rng):
    start, stop = pieces(data, rng)
    return np.delete(data, slice(start, stop))


def repeat(data, other, rng):
    start, stop = pieces(data, rng)
    copies = [data[start:stop]] * int(rng.integers(1, 9))
    return np.concatenate([data[:stop], *copies, data[stop:]])


def fill(data, other, rng):
    start, stop = pieces(data, rng)
    data[start:stop] = rng.choice([0, 0xFF])
    return data


def splice(data, other, rng):
    """Inserts or overwrites with a part of another file."""
    start, stop = pieces(other, rng)
    at = int(rng.integers(len(data)))
    rest = data[at:] if rng.integers(2) else data[at + stop - start :]
    return np.concatenate([data[:at], other[start:stop], rest])


def join(data, other, rng):
    """Continues with another file."""
    return np.concatenate([data[: rng.integers(1, len(data))], other[rng.integers(len(other)) :]])


DAMAGES = (flip, flip_bits, damage_header, damage_name, truncate, remove, repeat, fill, splice, join)


def mutant(files, number):
    """Returns the name and contents of a mutant, with one or two damages."""
    rng = np.random.default_rng(number)
    names = list(files)
    name = names[number % len(names)]
    data = np.frombuffer(files[name], np.uint8).copy()
    for _ in range(rng.integers(1, 3)):
        other = np.frombuffer(files[names[rng.integers(len(names))]], np.uint8)
        data = DAMAGES[rng.integers(len(DAMAGES))](data, other, rng)
        if not len(data):
            break
    return name, data.tobytes(), rng


def check(files, number, folder):
    """Reads frames and sound of a mutant; returns which of them it could read."""
    name, data, rng = mutant(files, number)
    source, path = data, folder / name
    if number // len(files) % 2:  # else from memory
        path.write_bytes(data)
        source = str(path)
    read, grey = [], bool(rng.integers(2))
    channels = 1 if grey else 3
    try:
        with Video(source) as video:
            assert video.num_frames == len(video.times) and (np.diff(video.times) > 0).all()
            assert np.isfinite([video.fps, video.duration, video.tolerance, *video.times]).all()
            read.append("index")
            indices = rng.integers(video.num_frames, size=rng.integers(1, 9))
            frames = video.frames(indices, grey)
            assert frames.dtype == np.uint8
            assert frames.shape == (len(indices), video.height, video.width, channels)
            video.frames_at([0.0, video.duration])
            read.append("frames")
    except DecodeError as error:
        assert one_line(error), repr(error)
    try:
        with Video(source, indexed=False) as video:
            for count, (seconds, frame) in enumerate(video.play(grey)):
                assert np.isfinite(seconds) and frame.dtype == np.uint8 and frame.shape[2] == channels
                if count == 20:
                    break
            read.append("play")
    except DecodeError as error:
        assert one_line(error), repr(error)
    try:
        start = float(rng.uniform(-1, 5))
        sound = read_audio(source, start, start + 1, 16000)
        assert sound.dtype == np.float32 and sound.shape == (16000,)
        read.append("sound")
    except DecodeError as error:
        assert one_line(error), repr(error)
    path.unlink(missing_ok=True)
    return " ".join(read) or "nothing"


def one_line(error):
    return str(error).isprintable() and len(str(error)) < 500


def run(files, start, stop, folder, connection):
    """Checks mutants, in a process of its own."""
    av.logging.set_level(av.logging.PANIC)
    for number in range(start, stop):
        try:
            outcome = check(files, number, folder)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        connection.send((number, outcome, resident()))


def fuzz(files, folder, mutants=MUTANTS):
    """Checks all mutants; returns the failures, the outcomes, and the memory after each mutant."""
    spawn, failures, outcomes, memory = multiprocessing.get_context("spawn"), [], collections.Counter(), {}
    number = 0
    while number < mutants:
        here, there = spawn.Pipe()
        process = spawn.Process(target=run, args=(files, number, mutants, folder, there), daemon=True)
        process.start()
        there.close()
        try:
            while number < mutants:
                if not here.poll(TIMEOUT):
                    failures.append((number, f"longer than {TIMEOUT} s"))
                    break
                number, outcome, memory[number] = here.recv()
                outcomes[outcome] += 1
                if ":" in outcome:
                    failures.append((number, outcome))
                number += 1
        except EOFError:
            process.join()
            failures.append((number, f"exit code {process.exitcode}"))
        if failures and failures[-1][0] == number:
            number += 1  # continue after the mutant that ended the process
        process.kill()
        process.join()
    return failures, outcomes, memory


@pytest.mark.parametrize("fixtures", [generated, pytest.param(real, marks=needs_data)])
def test_damaged_files_end_as_frames_or_decode_error(tmp_path, fixtures):
    files = fixtures(tmp_path)
    failures, outcomes, memory = fuzz(files, tmp_path)
    print(outcomes, {k: f"{memory[k - 1] / 2**20:.0f} MiB" for k in (WARM, MUTANTS) if k - 1 in memory})
    assert not failures, "\n".join(f"{n} ({mutant(files, n)[0]}): {how}" for n, how in failures)
    assert memory[MUTANTS - 1] <= 1.05 * memory[WARM - 1]
