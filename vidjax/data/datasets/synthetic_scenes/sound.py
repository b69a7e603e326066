"""The sound of a scene: each kind of object has a timbre, and each class of event a pitch.

Each cycle of an event is a tone that is struck and decays. Objects that collide or part are struck when they
touch.
"""

import numpy as np

from vidjax.data.datasets.synthetic_scenes.script import CLASSES, CONTACT, KINDS, Event, Scene

# Amplitudes of the harmonics of each kind of object.
TIMBRES = ((1.0, 0.5, 0.25, 0.12), (1.0, 0.0, 0.6, 0.0), (0.3, 1.0, 0.2, 0.6), (1.0, 0.05, 0.0, 0.4))
LOUDNESS = 0.25  # amplitude of one object
ATTACK = 0.01  # seconds
DECAY = 4.0  # e-foldings per cycle
assert len(TIMBRES) == len(KINDS)


def pitch(label: int) -> float:
    """Returns the fundamental frequency of a class in Hz, two semitones apart."""
    return 220.0 * 2 ** (label / 6)


def stems(scene: Scene, rate: int) -> np.ndarray:
    """Returns the sound of each object, float32 [objects, N]; their sum is the sound of the scene."""
    sounds = np.zeros((len(scene.objects), round(scene.seconds * rate)), np.float32)
    for event in scene.events:
        first, last = round(event.start * rate), round(event.end * rate)
        for i in event.actors:
            sounds[i, first:last] = _tone(event, scene.objects[i].kind, np.arange(first, last) / rate)
    return sounds


def _tone(event: Event, kind: int, times: np.ndarray) -> np.ndarray:
    """Returns the sound of an object at `times`, float32 [n]."""
    contact = {"collide": CONTACT, "part": 1 - CONTACT}.get(CLASSES[event.label], 0.0)
    loudness = 0.3 + 0.7 * np.exp(-DECAY * ((event.phases(times) - contact) % 1.0))
    edge = np.clip(np.minimum(times - event.start, event.end - times) / ATTACK, 0, 1)
    # Harmonics by recurrence, sin((h + 1) x) = 2 cos(x) sin(h x) - sin((h - 1) x), which is fast.
    angle = (2 * np.pi * pitch(event.label) * (times - event.start)).astype(np.float32)
    double, last, now = 2 * np.cos(angle), np.zeros_like(angle), np.sin(angle)
    wave = np.zeros_like(angle)
    for amplitude in TIMBRES[kind]:
        wave += amplitude * now
        last, now = now, double * now - last
    return (LOUDNESS / sum(TIMBRES[kind]) * edge * loudness * wave).astype(np.float32)
