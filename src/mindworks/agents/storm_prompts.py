"""What the original mindstorm protocol asks, in words of its own; what others said stands in it as quoted data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindworks.agents.choices import LETTERS
from mindworks.agents.messages import Message, quoted
from mindworks.agents.models import image_part
from mindworks.errors import require

MISSION = "Describe this image in detail."
"""the question of the first round where there is an image"""
GOAL = (
    "Describe this image so that a reader learns what lies behind it: where and when it was taken, which event or "
    "story it shows, and whatever else matters."
)
"""what captioning is for"""


def listed(options: Sequence[str]) -> str:
    """Return the options on one line, each behind its letter."""
    return ", ".join(f"({LETTERS[index]}) {option}" for index, option in enumerate(options))


def task_text(goal: str, options: Sequence[str]) -> str:
    """Return what is to be solved: a question with options, or a goal."""
    return f"Question: {goal}\nOptions: {listed(options)}" if options else f"Goal: {goal}"


def mission(goal: str, image: str | None) -> str:
    """Return the question of the first round."""
    return MISSION if image is not None else f"What do you know that bears on this? {goal}"


def question_prompt(task: str, record: Sequence[Message]) -> str:
    """Return the leader's order to think of the next question."""
    return (
        f"You lead a group that may see what you do not.\n{task}\n\n"
        f"What you asked, and what the group answered:\n\n{quoted(record)}\n\n"
        "With the task above in mind, ask the group one further question that helps to solve it. "
        "Write the question alone, ended by a question mark."
    )


def summary_prompt(task: str, record: Sequence[Message]) -> str:
    """Return the leader's order to gather opinions. It says brainstorm, as models took the word mindstorm amiss."""
    return (
        f"This is the record of a brainstorm.\n{task}\n\n{quoted(record)}\n\nSum up in a few sentences what was said."
    )


def execution_prompt(task: str, options: Sequence[str], summary: str) -> str:
    """Return the order to solve the task by the summary."""
    context = quoted([Message("summary", summary)])
    letters = " or ".join(f"({letter})" for letter in LETTERS[: len(options)])
    last = f"Which option is right? Answer {letters}, and nothing else." if options else "Write the description alone."
    return f"{task}\n\nContext:\n\n{context}\n\n{last}"


def vote_prompt(question: str, answers: Sequence[Message]) -> str:
    """Return the ballot on the answers to one question; they are numbered and carry no names."""
    numbered = [Message(f"answer {number}", answer.text) for number, answer in enumerate(answers, 1)]
    return f"{question}\n\n{quoted(numbered)}\n\nWhich of these answers is best? Reply with its number alone."


def alone_prompt(task: str, options: Sequence[str]) -> str:
    """Return the task for a member that works by itself."""
    return f"{task}\n\n{'Select the best option. Answer:' if options else 'Write the description alone.'}"


def user_message(text: str, image: str | None) -> dict[str, Any]:
    """Return a chat message of the user, with the image at `image`, a URL, if there is one.

    Raises `InputError` for an image that is no `data:image/`, `https:` or `http:` URL: a path is never sent.
    """
    if image is None:
        return {"role": "user", "content": text}
    known = image.startswith(("data:image/", "https://", "http://"))
    require(known, f"image must be a data:image/, https: or http: URL, got {image[:60]!r}")
    return {"role": "user", "content": [{"type": "text", "text": text}, image_part(image)]}
