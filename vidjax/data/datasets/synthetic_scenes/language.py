"""Text about a scene: captions, questions with answers, and queries, all true by construction."""

from collections.abc import Sequence

import numpy as np

from vidjax.data.datasets.synthetic_scenes.script import CLASSES, Event, Scene
from vidjax.data.targets import MomentsTarget, QuestionTarget

# Synonyms for each class, with the verb in the third person; collisions have the plural as well.
PHRASES = {
    "move_right": ("slides to the right", "moves right"),
    "move_left": ("slides to the left", "moves left"),
    "move_down": ("slides downward", "moves down"),
    "move_up": ("slides upward", "moves up"),
    "spin_clockwise": ("spins clockwise", "rotates clockwise"),
    "spin_counterclockwise": ("spins counterclockwise", "rotates counterclockwise"),
    "grow": ("grows", "gets bigger"),
    "shrink": ("shrinks", "gets smaller"),
    "appear": ("fades in", "gradually appears"),
    "disappear": ("fades out", "gradually disappears"),
    "collide": ("drifts into another object", "slowly runs into another object"),
    "part": ("backs away from another object", "slowly moves away from another object"),
}
TOGETHER = {
    "collide": ("drift into each other", "slowly run into each other"),
    "part": ("back away from each other", "slowly move away from each other"),
}
# By the number of events, which are in the order of their start.
TEMPLATES = {
    1: ("{0}.", "In this video, {0}.", "We see that {0}."),
    2: (
        "{0}, then {1}.",
        "Before {1}, {0}.",
        "After {0}, {1}.",
        "First {0}, and later {1}.",
    ),
    3: (
        "{0}, then {1}, and then {2}.",
        "First {0}, later {1}, and finally {2}.",
        "After {0}, {1}, and then {2}.",
        "{0}, and before {2}, {1}.",
    ),
}
TOLD = 3  # events in the caption of a video
OPTIONS = 4


def phrase(scene: Scene, event: Event, form: int = 0) -> str:
    """Returns an event as "the red flag spins clockwise"; `form` selects the synonym."""
    names = [f"the {scene.objects[i].name}" for i in event.actors]
    verbs = (PHRASES if len(names) == 1 else TOGETHER)[CLASSES[event.label]]
    return f"{' and '.join(names)} {verbs[form]}"


def captions(scene: Scene, events: Sequence[Event] | None = None) -> tuple[str, ...]:
    """Returns paraphrases of what happens in up to three events, in the order of their start.

    Args:
      scene: the scene.
      events: what to describe; None is the longest events of the scene.
    """
    if events is None:
        longest = sorted(scene.events, key=lambda e: e.start - e.end)[:TOLD]
        events = sorted(longest)
    texts = []
    for k, template in enumerate(TEMPLATES[len(events)]):
        text = template.format(*(phrase(scene, e, (k + i) % 2) for i, e in enumerate(events)))
        texts.append(text[0].upper() + text[1:])
    return tuple(texts)


def questions(scene: Scene) -> tuple[QuestionTarget, ...]:
    """Returns questions that no single frame answers.

    Questions with options are asked such that each option is equally likely without the video:
      first            What an object does first. Wrong options include what else happens.
      counterfactual   What would happen first without the object that is first: the first event of another.
                       Wrong options include what happens first with it.
      order            Which of two events starts first, named in random order.
      exists           Whether an object does something that happens in the video.
    The kinds "first" and "counterfactual" ask about what objects do on their own, since collisions have two
    actors and would be likelier answers. Open are "first" and "count", how often an object does something.
    """
    rng = np.random.default_rng((*scene.key, 4))
    solo = [e for e in scene.events if len(e.actors) == 1]
    asked = []
    for i, o in enumerate(scene.objects):
        count = sum(i in e.actors for e in scene.events)
        text = f"How many times does the {o.name} do something?"
        asked.append(QuestionTarget(text, str(count), kind="count"))
        mine = [e for e in solo if i in e.actors]
        if mine:
            text, answer = f"What does the {o.name} do first on its own?", _verb(mine[0].label)
            asked.append(QuestionTarget(text, answer, _options(rng, solo, mine[0]), "first"))
            asked.append(QuestionTarget(text, answer, kind="first"))

    left = [e for e in solo if e.actors != solo[0].actors]
    if left:
        name = scene.objects[solo[0].actors[0]].name
        text = f"If the {name} were not there, what would be the first thing that an object does on its own?"
        answer = _verb(left[0].label)
        asked.append(QuestionTarget(text, answer, _options(rng, solo, left[0]), "counterfactual"))

    unique = [events[0] for events in _alike(scene).values() if len(events) == 1]
    if len(unique) > 1:
        a, b = sorted(unique[k] for k in rng.choice(len(unique), 2, replace=False))
        pair = tuple(phrase(scene, e) for e in ((a, b) if rng.random() < 0.5 else (b, a)))
        text = f"Which happens first: {pair[0]}, or {pair[1]}?"
        asked.append(QuestionTarget(text, phrase(scene, a), pair, "order"))

    for label in sorted({e.label for e in scene.events}):
        actors = {i for e in scene.events if e.label == label for i in e.actors}
        if len(actors) < len(scene.objects):  # given the class, both answers are possible and equally likely
            yes = rng.random() < 0.5
            i = rng.choice(sorted(actors if yes else set(range(len(scene.objects))) - actors))
            text = f"Is it true that the {scene.objects[i].name} {_verb(label)}?"
            asked.append(QuestionTarget(text, "yes" if yes else "no", ("yes", "no"), "exists"))
    return tuple(asked)


def queries(scene: Scene) -> tuple[MomentsTarget, ...]:
    """Returns a query for each thing that happens in a scene."""
    return tuple(
        MomentsTarget(phrase(scene, events[0]), tuple((e.start, e.end) for e in events), scene.seconds)
        for events in _alike(scene).values()
    )


def _alike(scene: Scene) -> dict[tuple[int, tuple[int, ...]], list[Event]]:
    """Returns the events by class and actors, which the text about them does not distinguish."""
    found: dict[tuple[int, tuple[int, ...]], list[Event]] = {}
    for event in scene.events:
        found.setdefault((event.label, event.actors), []).append(event)
    return found


def _verb(label: int) -> str:
    return PHRASES[CLASSES[label]][0]


def _options(rng: np.random.Generator, solo: Sequence[Event], answer: Event) -> tuple[str, ...]:
    """Returns the answer and other classes that objects do on their own, first those of the scene."""
    classes = [k for k, name in enumerate(CLASSES) if name not in TOGETHER and k != answer.label]
    here = {e.label for e in solo}
    wrong = sorted(rng.permutation(classes).tolist(), key=lambda k: k not in here)
    chosen = [answer.label, *wrong[: OPTIONS - 1]]
    return tuple(_verb(chosen[k]) for k in rng.permutation(OPTIONS))
