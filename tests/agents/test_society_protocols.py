"""Each protocol against counts by hand; text is the only way from a member to the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import log
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.messages import Message, unquoted
from mindworks.agents.models import FunctionModel
from mindworks.agents.society import (
    Chief,
    Democracy,
    Expert,
    Judge,
    Liar,
    Market,
    Mindstorm,
    Monarchy,
    Question,
    Society,
    hear,
    heard_shortlist,
    leading,
    say,
    tally,
    winner,
)
from mindworks.errors import InputError

LETTERS = tuple("ABCD")
QUESTION = Question("Which one?", LETTERS, key="7")
PROTOCOLS = [
    Democracy(),
    Democracy(by_confidence=True),
    Market(),
    Mindstorm(),
    Mindstorm(keep=(2,), share=False),
    Monarchy(Judge()),
]
NAMES = ["democracy", "confidence", "market", "mindstorm", "one round more", "monarchy"]


def believer(name: str, order: str, confidence: float = 0.5) -> Expert:
    """A member that names the first letter of `order` that is still open."""

    def respond(question: Question) -> str:
        options = heard_shortlist(question.text, question.choices)
        return say(next(letter for letter in order if letter in options), confidence)

    return Expert(name, respond)


def society(*orders: str) -> Society:
    """One believer per order."""
    return Society([believer(f"m{i}", order) for i, order in enumerate(orders)])


def test_votes_by_hand() -> None:
    messages = [Message("x", say("A", 0.95)), Message("y", say("B", 0.25)), Message("z", say("B", 0.25))]
    assert tally(messages, LETTERS, LETTERS) == {"A": 1, "B": 2, "C": 0, "D": 0}
    weighed = tally(messages, LETTERS, ("A", "B"), lambda sender, statement: statement.confidence)
    assert weighed == {"A": 0.95, "B": 0.5}
    assert tally(messages, LETTERS, ("C", "D")) == {}
    assert winner({}, 0) is None
    assert leading({"A": 1, "B": 3, "C": 2, "D": 0}, 2, 0) == ("B", "C")


def test_a_majority_wins_and_one_loud_voice_does_not() -> None:
    members = Society([believer("x", "A", 0.95), believer("y", "B", 0.25), believer("z", "B", 0.25)])
    assert members.ask(QUESTION, Democracy()).answer == "B"
    assert members.ask(QUESTION, Democracy(by_confidence=True)).answer == "A"


def test_a_mindstorm_gathers_votes_of_answers_that_fell_out() -> None:
    members = society("AB", "AB", "AB", "BA", "BA", "CBA", "DBA")
    assert members.ask(QUESTION, Democracy()).answer == "A"
    transcript = members.ask(QUESTION, Mindstorm(keep=(2,)))
    assert transcript.answer == "B"
    assert heard_shortlist(transcript.asked(2), LETTERS) == ("A", "B")
    assert len(transcript.messages(2)) == 7


def test_members_hear_each_other_in_a_mindstorm_only_if_told() -> None:
    heard: list[tuple[Message, ...]] = []
    spy = Expert("spy", lambda question: heard.append(question.heard) or "It is A.")  # type: ignore[func-returns-value]
    Society([spy]).ask(QUESTION, Mindstorm(keep=(2,)))
    Society([spy]).ask(QUESTION, Mindstorm(keep=(2,), share=False))
    assert heard == [(), (Message("spy", "It is A."),), (), ()]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=NAMES)
def test_corrupting_the_text_changes_the_answer(protocol: Any) -> None:
    def garbled(member: Expert, old: str, new: str) -> Expert:
        return Expert(member.name, lambda question: re.sub(old, new, str(member.speak(question))))

    members = [believer(f"m{i}", "BCAD") for i in range(3)]
    assert Society(members).ask(QUESTION, protocol).answer == "B"
    changed = [garbled(member, r"it is \w", "it is D") for member in members]
    assert Society(changed).ask(QUESTION, protocol).answer == "D"
    mute = [garbled(member, "it is", "it may be") for member in members]
    assert Society(mute).ask(QUESTION, protocol).answer is None


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=NAMES)
def test_one_member_alone_and_liars_alone(protocol: Any) -> None:
    assert society("CABD").ask(QUESTION, protocol).answer == "C"
    liars = Society([Liar(believer(f"m{i}", "CABD")) for i in range(5)])
    answer = liars.ask(QUESTION, protocol).answer
    assert answer in LETTERS
    if isinstance(protocol, (Democracy, Market)):
        assert answer == "D"  # what comes after C


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=NAMES)
def test_the_order_of_the_members_changes_nothing(protocol: Any) -> None:
    orders = ["ABCD", "ABCD", "BACD", "BACD", "CDAB", "DCBA"]
    pairs = [believer(f"m{i}", order) for i, order in enumerate(orders)]
    assert Society(pairs).ask(QUESTION, protocol).answer == Society(pairs[::-1]).ask(QUESTION, protocol).answer


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(0, 10**6))
def test_ties_are_drawn_by_seed_and_question(seed: int, key: int) -> None:
    question = Question("Which one?", LETTERS, key=str(key))
    tied = society("AB", "BA")
    answers = {tied.ask(question, Democracy(seed=seed)).answer for _ in range(2)}
    assert len(answers) == 1
    assert answers <= {"A", "B"}


def test_ties_fall_both_ways() -> None:
    tied = society("AB", "BA")
    asked = [Question("Which one?", LETTERS, key=str(i)) for i in range(200)]
    answers = [t.answer for t in tied.ask_all(asked, Democracy(seed=1))]
    assert 60 < answers.count("A") < 140


def test_a_judge_learns_whom_to_trust() -> None:
    """Two members that are always wrong against one that is always right."""
    asked = [Question("Which one?", LETTERS, key=LETTERS[i % 4]) for i in range(40)]
    knows = Expert("knows", lambda question: say(question.key, 0.25))
    wrong = [Liar(Expert(name, lambda question: say(question.key, 0.95))) for name in ("w1", "w2")]
    members, monarchy = Society([knows, *wrong]), Monarchy(Judge(keep=(2,)))
    before = members.ask_all(asked, Monarchy(Judge(keep=(2,))))
    assert not any(t.answer == q.key for t, q in zip(before, asked, strict=True))
    members.learn(asked, [q.key for q in asked], monarchy)
    after = members.ask_all(asked, monarchy)
    assert all(t.answer == q.key for t, q in zip(after, asked, strict=True))


def test_log_odds_by_hand() -> None:
    judge = Judge()
    assert judge.log_odds(1, "x", 0.5, 4) == 1.0
    for answer, truth in (("A", "A"), ("A", "A"), ("B", "A")):
        transcript = Society([Expert("x", lambda question, said=answer: say(said, 0.5))]).ask(QUESTION, Democracy())
        judge.feedback(transcript, truth)
    share = (2 + 1) / (3 + 4)
    assert judge.log_odds(1, "x", 0.5, 4) == pytest.approx(log(share * 3 / (1 - share)))
    assert judge.log_odds(1, "stranger", 0.5, 4) == pytest.approx(0.0)
    assert judge.log_odds(1, "x", 0.95, 4) == pytest.approx(0.0)


def test_a_judge_reads_rounds_where_the_truth_was_open() -> None:
    judge = Judge(keep=(2,))
    transcript = society("AB", "AB", "BA", "BA", "CA").ask(QUESTION, Monarchy(judge))
    assert transcript.rounds == 2
    judge.feedback(transcript, "C")
    assert {key[0] for key in judge.said} == {1}
    judge.feedback(transcript, "A")
    assert {key[0] for key in judge.said} == {1, 2}


def test_a_model_leads_by_text_and_hears_members_as_data() -> None:
    prompts: list[str] = []

    def lead(chat: Sequence[dict[str, Any]], sample: int) -> str:
        prompts.append(chat[-1]["content"])
        return "The answer is (C)." if "Decide." in prompts[-1] else "Opinions differ. Is it A or C?"

    asked: list[str] = []
    member = Expert("m", lambda question: asked.append(question.text) or "```\nIt is B.")  # type: ignore[func-returns-value]
    transcript = Society([member]).ask(QUESTION, Monarchy(Chief("chief", FunctionModel("fake", lead)), rounds=2))
    assert transcript.answer == "C"
    assert [entry.kind for entry in transcript.entries] == [
        "question",
        "statement",
        "question",
        "statement",
        "decision",
    ]
    assert unquoted(asked[1]) == (Message("chief", "Opinions differ. Is it A or C?"),)
    assert unquoted(prompts[0]) == (Message("m", "```\nIt is B."),)
    assert len(unquoted(prompts[1])) == 2


def test_a_leader_that_says_nothing_hearable_gives_no_answer() -> None:
    leader = Chief("chief", FunctionModel("fake", lambda chat, sample: "Hard to say."))
    assert society("AB").ask(QUESTION, Monarchy(leader, rounds=1)).answer is None


def test_a_leader_that_ends_early_ends_the_rounds() -> None:
    leader = Chief("chief", FunctionModel("fake", lambda chat, sample: ""))
    assert society("AB").ask(QUESTION, Monarchy(leader, rounds=5)).rounds == 1


def test_bad_protocols_are_refused() -> None:
    for keep in ((1,), (2, 3)):
        with pytest.raises(InputError, match="keep must be"):
            Mindstorm(keep=keep)
        with pytest.raises(InputError, match="keep must be"):
            Judge(keep=keep)
    with pytest.raises(InputError, match="rounds must be at least 1, got 0"):
        Monarchy(Judge(), rounds=0)
    mute = Monarchy(Chief("chief", FunctionModel("fake", lambda chat, sample: "It is A.")))
    with pytest.raises(InputError, match="leader must learn"):
        society("AB").learn([QUESTION], ["A"], mute)
    with pytest.raises(InputError, match="truths must be one per question"):
        society("AB").learn([QUESTION], [], Market())
    with pytest.raises(InputError, match="truths must be among the choices"):
        society("AB").learn([QUESTION], ["E"], Market())


def test_the_same_society_asked_twice_says_the_same() -> None:
    asked = [Question("Which one?", LETTERS, key=str(i)) for i in range(20)]
    for protocol in PROTOCOLS:
        runs = [society("AB", "BA", "CA", "DB").ask_all(asked, protocol) for _ in range(2)]
        assert [t.as_dict() for t in runs[0]] == [t.as_dict() for t in runs[1]]
        assert all(hear(str(t.messages(1)[0].text), LETTERS).answer == "A" for t in runs[0])
