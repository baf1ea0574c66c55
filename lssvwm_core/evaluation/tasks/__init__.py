"""What a world is asked to do. Adding a task is a module with a class derived from `Task`, and a line below."""

from dataclasses import replace

from lssvwm_core.evaluation.tasks.reasoning import Long, Reasoning
from lssvwm_core.evaluation.tasks.retrieval import Retrieval
from lssvwm_core.evaluation.tasks.task import Task
from lssvwm_core.evaluation.tasks.turn import Turn
from lssvwm_core.evaluation.tasks.way_back import WayBack
from lssvwm_datasets.errors import LssvwmError

__all__ = ["TASKS", "Task", "make_task"]

TASKS: dict[str, Task] = {task.name: task for task in (Retrieval(), Reasoning(), Long(), Turn(), WayBack())}


def make_task(name: str, context: int | None = None, frames: int | None = None) -> Task:
    """A task with its own lengths, or others. Raises: LssvwmError for unknown names."""
    if name not in TASKS:
        known = "\n".join(f"  {task.name}: {task.about}" for task in TASKS.values())
        raise LssvwmError(f"{name!r} is no task; expected one of\n{known}")
    task = TASKS[name]
    task = replace(task, context=context or task.context)
    return replace(task, frames=frames or task.default_frames())
