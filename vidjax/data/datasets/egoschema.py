"""EgoSchema: questions about three minutes of first-person video, with five options each.

Mangalam et al., EgoSchema, arXiv:2308.09126. questions.json is a list of {"q_uid", "question", "option 0",
..., "option 4"}, and subset_answers.json has the published answers, {q_uid: index of the option}. Those of
the other 4,531 questions are not published.
"""

import os

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_json, read_objects
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import QuestionTarget
from vidjax.errors import UserError

CARD = Card(
    title="EgoSchema (2023)",
    paper="arXiv:2308.09126",
    splits={"subset": 500},
    classes=0,
    targets=(QuestionTarget,),
    metric="accuracy, on subset",
    layout="questions.json, subset_answers.json, and videos named Q_UID.mp4",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.05
) -> ListSource:
    """Lists the questions whose answers are published.

    Args:
      split: "subset".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of questions that may be malformed or of missing videos.

    Raises:
      UserError: a list is missing, or too many questions cannot be used.
    """
    lists = annotations or path
    file = locate(lists, "subset_answers.json", layout=CARD.layout)
    answers = read_json(file)
    if not isinstance(answers, dict):
        raise UserError(f"{file} is not an object with the answer of each question")
    videos, notes, records = VideoFolder(path), Annotations("EgoSchema", bad_limit), []
    for _, row in read_objects(locate(lists, "questions.json", layout=CARD.layout)):
        with notes.line(row):
            if (id := row.text("q_uid")) not in answers:
                continue
            options, answer = tuple(row.text(f"option {i}") for i in range(5)), answers[id]
            if answer not in range(5):
                raise BadLine(f"the answer {answer} is not from 0 to 4")
            target = QuestionTarget(row.text("question"), options[answer], options)
            records.append(Record(videos.find(id), target, id))
    return notes.source(records)
