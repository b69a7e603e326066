"""What models learn. Each task is one file that holds everything that differs between tasks."""

import functools
import importlib
import pkgutil
from typing import Any

from vidjax.errors import unknown
from vidjax.options import complete
from vidjax.tasks.base import Task


@functools.cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def tasks() -> dict[str, type[Task]]:
    """Returns all tasks by name: those of the modules of this package, and others that were imported."""
    _import_all()
    found: dict[str, type[Task]] = {}
    queue = Task.__subclasses__()
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if "name" in vars(cls):
            found[cls.name] = cls
    return dict(sorted(found.items()))


def task_class(name: str) -> type[Task]:
    """Returns the class of a task. Raises `UserError` if the name is unknown."""
    if name not in tasks():
        raise unknown("task", name, tasks())
    return tasks()[name]


def create_task(name: str, *, inputs: Any, class_names: Any = (), seed: int = 0, **options: Any) -> Task:
    """Creates a task.

    Args:
      name: see `tasks`.
      inputs: the `Inputs` of the model.
      class_names: names of the labels.
      seed: seed of random numbers in evaluation.
      **options: values of the section `task` of a config.

    Raises:
      UserError: the task or an option is unknown, or a value is out of range.
    """
    cls = task_class(name)
    return cls(inputs=inputs, class_names=tuple(class_names), seed=seed, **complete(cls, options, "task"))
