"""Tasks for language agents, read from files in the form they are distributed in. Nothing is downloaded."""

from mindworks.data.agent_tasks.text import (
    CodeTask,
    GaiaTask,
    MiniCrossword,
    Task,
    read_gaia,
    read_humaneval,
    read_mini_crosswords,
    read_mmlu,
    read_tasks,
)
from mindworks.data.agent_tasks.vision import CaptionTask, VisualQuestion, image_url, read_aokvqa, read_tara

__all__ = [
    "CaptionTask",
    "CodeTask",
    "GaiaTask",
    "MiniCrossword",
    "Task",
    "VisualQuestion",
    "image_url",
    "read_aokvqa",
    "read_gaia",
    "read_humaneval",
    "read_mini_crosswords",
    "read_mmlu",
    "read_tara",
    "read_tasks",
]
