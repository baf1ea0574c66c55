"""Reasoning (paper, section 'Long-term memory'): the recording goes on, past places that were seen and others."""

from dataclasses import dataclass
from typing import ClassVar

from lssvwm_core.evaluation.tasks.task import Task


@dataclass(frozen=True)
class Reasoning(Task):
    name: str = "reasoning"
    context: int = 576
    frames: int = 224


@dataclass(frozen=True)
class Long(Task):
    """Long generation (paper): a short context, and much to generate."""

    name: str = "long"
    context: int = 240
    frames: int = 560

    about: ClassVar[str] = "the recording goes on for long after the context"
