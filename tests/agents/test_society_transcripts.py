"""Transcripts survive JSON, and organisers pick by what candidates are good for."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.messages import unquoted
from mindworks.agents.models import FunctionModel
from mindworks.agents.society import (
    Candidate,
    Expert,
    Judge,
    Mindstorm,
    Monarchy,
    Question,
    Society,
    Transcript,
    pick_by_model,
    pick_by_words,
    say,
    tally,
    winner,
)
from mindworks.errors import InputError

LETTERS = tuple("ABCD")
QUESTION = Question("Which one?", LETTERS, key="7")
SAID = "I see „B“.\nThe answer is (B)."


def a_transcript() -> Transcript:
    """Two rounds with a failure and a decision."""

    def broken(question: Question) -> str:
        raise RuntimeError("no power")

    members = [Expert("x", lambda question: SAID), Expert("y", broken), Expert("z", lambda question: say("A", 0.9))]
    return Society(members).ask(QUESTION, Monarchy(Judge(keep=(2,))))


def test_a_transcript_is_json_and_reads_back() -> None:
    before = a_transcript()
    after = Transcript.from_dict(json.loads(json.dumps(before.as_dict())))
    assert after.as_dict() == before.as_dict()
    assert after.messages(2) == before.messages(2)
    assert after.failures == {"y": "RuntimeError: no power"}
    assert (after.rounds, after.answer, after.choices) == (2, before.answer, LETTERS)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=4))
def test_any_text_survives(question: str, texts: list[str]) -> None:
    before = Transcript(question, LETTERS)
    before.note("question", "chair", question)
    for text in texts:
        before.note("statement", "x", text)
    after = Transcript.from_dict(json.loads(json.dumps(before.as_dict())))
    assert [message.text for message in after.messages(1)] == texts


def test_a_saved_vote_can_be_counted_again() -> None:
    members = [Expert(str(i), lambda question, said=letter: say(said, 0.5)) for i, letter in enumerate("BBA")]
    saved = Society(members).ask(QUESTION, Mindstorm(keep=(2,))).as_dict()
    read = Transcript.from_dict(saved)
    assert winner(tally(read.messages(read.rounds), read.choices, read.choices), 0) == read.answer == "B"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("entries", 0, "kind"), "song"),
        (("entries", 0, "round"), 5),
        (("entries", 0), {"kind": "question"}),
        (("choices",), None),
    ],
)
def test_damaged_data_is_refused(path: tuple[Any, ...], value: object) -> None:
    data = copy.deepcopy(a_transcript().as_dict())
    part: Any = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(InputError) as caught:
        Transcript.from_dict(data)
    assert "\n" not in str(caught.value)


def test_a_round_that_never_was_is_refused() -> None:
    with pytest.raises(InputError, match="round must be between 1 and 2, got 3"):
        a_transcript().asked(3)


# -- organisers -------------------------------------------------------------------------------------------------------


def candidates() -> list[Candidate]:
    """Three specialists."""
    skills = {
        "reader": "reads text and numbers in images",
        "painter": "draws images from text",
        "singer": "writes songs",
    }
    return [Candidate(Expert(name, lambda question: ""), skill) for name, skill in skills.items()]


def names(members: list[Any]) -> list[str]:
    """What they are called."""
    return [member.name for member in members]


def test_words_pick_the_specialist() -> None:
    assert names(pick_by_words("Which numbers are in the images?", candidates(), 1)) == ["reader"]
    assert names(pick_by_words("A song or two: songs!", candidates(), 1)) == ["singer"]
    assert names(pick_by_words("Which numbers are in the images?", candidates(), 2)) == ["reader", "painter"]


def test_without_a_word_in_common_the_lot_decides() -> None:
    picked = {names(pick_by_words("chess", candidates(), 1, seed))[0] for seed in range(40)}
    assert picked == {"reader", "painter", "singer"}
    assert pick_by_words("chess", candidates(), 1, 5)[0].name == pick_by_words("chess", candidates(), 1, 5)[0].name


def test_a_model_picks_by_name() -> None:
    prompts: list[str] = []

    def respond(chat: Any, sample: int) -> str:
        prompts.append(chat[-1]["content"])
        return "Here they are:\n1. Singer.\n- reader\n- the devil\nreader"

    model = FunctionModel("fake", respond)
    assert names(asyncio.run(pick_by_model("sing the numbers", candidates(), model))) == ["reader", "singer"]
    assert names(asyncio.run(pick_by_model("sing", candidates(), model, count=1))) == ["singer"]
    assert [message.sender for message in unquoted(prompts[0])] == ["reader", "painter", "singer"]
    assert "Name at most 1." in prompts[1]


def test_bad_picks_are_refused() -> None:
    lost = FunctionModel("fake", lambda chat, sample: "Nobody comes to mind.")
    with pytest.raises(InputError, match="model must name one of the candidates"):
        asyncio.run(pick_by_model("sing", candidates(), lost))
    with pytest.raises(InputError, match="count must be between 1 and 3, got 4"):
        pick_by_words("sing", candidates(), 4)
    with pytest.raises(InputError, match="candidates must be at least one"):
        pick_by_words("sing", [], 1)
    with pytest.raises(InputError, match="different names"):
        pick_by_words("sing", [*candidates(), candidates()[0]], 1)
