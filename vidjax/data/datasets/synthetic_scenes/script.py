"""What happens in a scene: its objects, their events over time, and the pose of each object at any time.

A scene is drawn from the seed (seed, split, index). The classes of its events are drawn independently of all
that a still frame shows: background, and kind, color, size, angle and home of the objects. Objects return to
their home after every event, so any event can follow any other, and a frame between events shows nothing of
them. The classes form pairs, of which one is the other played backwards: both consist of the same frames.
"""

import dataclasses
import functools

import numpy as np

KINDS = ("letter F", "letter L", "flag", "arrow")
COLORS = {
    "red": (235, 45, 40),
    "green": (40, 200, 60),
    "blue": (60, 90, 250),
    "yellow": (245, 215, 40),
    "purple": (165, 60, 205),
    "white": (245, 245, 245),
}
# Class 2k + 1 is class 2k played backwards.
CLASSES = (
    "move_right",
    "move_left",
    "move_down",
    "move_up",
    "spin_clockwise",
    "spin_counterclockwise",
    "grow",
    "shrink",
    "appear",
    "disappear",
    "collide",
    "part",
)
SPLITS = ("train", "val", "test")
OBJECTS = 3
VOCABULARY = 4  # classes of a scene

# Sizes are fractions of the frame's side, durations are seconds.
RADIUS = (0.12, 0.15)
TOUCH = 0.7  # distance of colliding objects when they touch, in sums of their radii
MOVE = 0.24  # distance of a movement, centered on the home
GROW = 2.1  # ratio of the largest to the smallest radius
PAN = 0.03  # per second, speed of the background
LEAD = 0.12  # share of a cycle in which an object goes from its home to where the movement starts
CONTACT = 1 - 2 * LEAD  # phase at which colliding objects touch
CYCLE = 1.2  # an event repeats its movement about once per cycle
MAIN, OTHER = 3.6, (0.8, 1.6)  # durations of the longest event and of the others
DENSITY = 0.7  # events per second
APART = 0.25  # between the starts of two events
REST = 0.2  # of an object between two events, and of all objects at both ends of the video
_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Object:
    """An object, which rests at its home between events.

    Attributes:
      kind: index into `KINDS`; the objects of a scene differ in it.
      color: index into `COLORS`; the objects of a scene differ in it.
      x, y, radius: home and radius, fractions of the frame's side.
      angle: turns, clockwise.
    """

    kind: int
    color: int
    x: float
    y: float
    radius: float
    angle: float

    @property
    def name(self) -> str:
        return f"{list(COLORS)[self.color]} {KINDS[self.kind]}"


@dataclasses.dataclass(frozen=True, order=True)
class Event:
    """Something that one object does, or two do together.

    Attributes:
      start, end: seconds.
      label: index into `CLASSES`.
      actors: indices of the objects, ascending.
    """

    start: float
    end: float
    label: int
    actors: tuple[int, ...]

    def phases(self, times: np.ndarray) -> np.ndarray:
        """Returns the position in [0, 1) of each time within its cycle of the movement, which repeats."""
        cycles = max(1, round((self.end - self.start) / CYCLE))
        return (times - self.start) / (self.end - self.start) * cycles % 1.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
      objects: from back to front.
      events: in the order of their start; those of an object do not overlap.
      pan: velocity (x, y) of the background in sides of the frame per second.
      seconds: duration, a whole number of frames.
      key: seed of the textures.
    """

    objects: tuple[Object, ...]
    events: tuple[Event, ...]
    pan: tuple[float, float]
    seconds: float
    key: tuple[int, ...]

    @property
    def main(self) -> Event:
        """The longest event, whose class is the class of the scene."""
        return max(self.events, key=lambda e: e.end - e.start)

    def poses(self, times: np.ndarray) -> np.ndarray:
        """Returns the poses of the objects.

        Args:
          times: [T], seconds.

        Returns:
          x, y, radius (fractions of the side), angle (turns) and opacity, float64 [objects, T, 5].
        """
        rest = [(o.x, o.y, o.radius, o.angle, 1.0) for o in self.objects]
        poses = np.tile(np.array(rest)[:, None], (1, len(times), 1))
        for event in self.events:
            inside = (event.start <= times) & (times < event.end)
            for i in event.actors:
                self._move(poses[i], inside, event, i, event.phases(times[inside]))
        return poses

    def _move(self, pose: np.ndarray, at: np.ndarray, event: Event, i: int, phase: np.ndarray) -> None:
        """Moves object `i`, whose poses are [T, 5], at the times `at` [T] that are in `phase` of an event."""
        forward = CLASSES[event.label - event.label % 2]
        if event.label % 2:
            phase = 1 - phase
        ramp = np.interp(phase, (0, LEAD, 1 - LEAD, 1), (0, -0.5, 0.5, 0))
        if forward == "move_right":
            pose[at, 0] += MOVE * ramp
        elif forward == "move_down":
            pose[at, 1] += MOVE * ramp
        elif forward == "spin_clockwise":
            pose[at, 3] += phase
        elif forward == "grow":
            pose[at, 2] *= GROW**ramp
        elif forward == "appear":
            pose[at, 4] = np.interp(phase, (0, LEAD, 2 * LEAD, 1), (1, 0, 0, 1))
        else:
            a, b = (self.objects[k] for k in event.actors)
            apart = np.array([b.x - a.x, b.y - a.y])
            step = apart / 2 * (1 - TOUCH * (a.radius + b.radius) / np.hypot(*apart))
            step *= 1 if i == event.actors[0] else -1
            pose[at, :2] += np.interp(phase, (0, CONTACT, 1), (0, 1, 0))[:, None] * step


@functools.lru_cache(maxsize=4096)
def make_scene(
    seed: int, split: str, i: int, fps: int, seconds: float = 10.0, longest: float | None = None
) -> Scene:
    """Draws scene `i` of a split.

    Args:
      seed, split, i: determine the scene.
      fps: frames per second, of which the duration is a whole number.
      seconds: duration. It determines the number of events.
      longest: if given, the duration is uniform between `seconds` and `longest`, independent of the events'
        number and classes.
    """
    key = (seed, SPLITS.index(split), i)
    rng = np.random.default_rng((*key, 0))
    cells = rng.choice(4, OBJECTS, replace=False)
    kinds = rng.choice(len(KINDS), OBJECTS, replace=False)
    colors = rng.choice(len(COLORS), OBJECTS, replace=False)
    objects = tuple(
        Object(
            kind=int(kind),
            color=int(color),
            x=0.31 + 0.38 * (cell % 2) + rng.uniform(-0.02, 0.02),
            y=0.31 + 0.38 * (cell // 2) + rng.uniform(-0.02, 0.02),
            radius=rng.uniform(*RADIUS),
            angle=rng.random(),
        )
        for cell, kind, color in zip(cells, kinds, colors)
    )
    direction = rng.uniform(0, 2 * np.pi)
    pan = (float(PAN * np.cos(direction)), float(PAN * np.sin(direction)))
    frames = rng.integers(round(seconds * fps), round((longest or seconds) * fps), endpoint=True)
    duration = int(frames) / fps
    # A separate stream, so that the appearance cannot depend on the events.
    events = _events(np.random.default_rng((*key, 1)), i % len(CLASSES), duration, seconds)
    return Scene(objects, events, pan, duration, key)


def _events(rng: np.random.Generator, main: int, duration: float, seconds: float) -> tuple[Event, ...]:
    """Draws the events: a long one of class `main`, and short ones of four classes, `main` among them."""
    scale = min(1.0, seconds / 8)
    others = [k for k in range(len(CLASSES)) if k != main]
    vocabulary = [main, *rng.choice(others, VOCABULARY - 1, replace=False).tolist()]
    count = max(VOCABULARY, round(DENSITY * seconds))
    labels = vocabulary + rng.choice(vocabulary, count - VOCABULARY).tolist()
    events: list[Event] = []
    for k, label in enumerate(labels):
        length = scale * (MAIN if k == 0 else rng.uniform(*OTHER))
        for _ in range(_TRIES):
            pair = CLASSES[label] in ("collide", "part")
            actors = tuple(sorted(rng.choice(OBJECTS, 1 + pair, replace=False).tolist()))
            start = rng.uniform(REST * scale, duration - REST * scale - length)
            event = Event(round(start, 3), round(start + length, 3), label, actors)
            if all(_compatible(event, e, scale) for e in events):
                events.append(event)
                break
    return tuple(sorted(events))


def _compatible(a: Event, b: Event, scale: float) -> bool:
    """Whether no object is busy with both events, and it is clear which of them starts first."""
    separate = max(a.start, b.start) - min(a.end, b.end) > REST * scale
    return (separate or not {*a.actors} & {*b.actors}) and abs(a.start - b.start) > APART * scale
