"""Boards by hand, the best consistent words against all subsets, members on a scripted model and a noisy solver."""

from __future__ import annotations

import asyncio
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents.crossword_members import (
    MAX_BOARDS,
    all_boards,
    branch,
    brute_force,
    brute_force_agent,
    greedy,
    reflect,
    reflection_agent,
    tree_agent,
)
from mindworks.agents.crossword_prompts import CHECK, PROPOSE, VALUE, State, propose_prompt, read_states, state_text
from mindworks.agents.crossword_solver import CALIBRATION, NoisySolver
from mindworks.agents.crosswords import (
    EMPTY,
    SLOTS,
    Crossword,
    Proposal,
    best_consistent,
    best_word_accuracy,
    board_text,
    cells,
    fits,
    letter_accuracy,
    placed,
    read_boards,
    read_proposals,
    word_accuracy,
    words,
)
from mindworks.agents.graph import Graph
from mindworks.agents.messages import Message
from mindworks.agents.models import Chat, FunctionModel
from mindworks.errors import InputError

SOLUTION = "ABCDEFGHIJKLMNOPQRSTUVWXY"
PUZZLE = Crossword(tuple(f"clue of {slot}" for slot in SLOTS), SOLUTION)


def puzzles(count: int, seed: int = 0) -> list[Crossword]:
    rng = np.random.default_rng(seed)
    solutions = ["".join(rng.choice(list("AEIOURSTLN"), 25)) for _ in range(count)]
    return [
        Crossword(tuple(f"clue {number}.{slot}" for slot in SLOTS), solution)
        for number, solution in enumerate(solutions)
    ]


def say(member, *texts: str, puzzle: Crossword = PUZZLE) -> str:
    messages = tuple(Message(f"member {number}", text) for number, text in enumerate(texts))
    return asyncio.run(member(puzzle, messages))


def scripted(
    proposals: str, verdicts: dict[str, str] | None = None, advice: str = ""
) -> tuple[FunctionModel, list[str]]:
    """A model that always proposes the same, judges patterns from a table, and keeps its prompts."""
    prompts: list[str] = []

    def respond(messages: Chat, sample: int) -> str:
        prompt = messages[-1]["content"]
        prompts.append(prompt)
        if prompt.startswith(PROPOSE):
            return proposals
        if prompt.startswith((VALUE, CHECK)):
            return next((verdict for word, verdict in (verdicts or {}).items() if f": {word}\n" in prompt), "maybe")
        return advice

    return FunctionModel("scripted", respond), prompts


# -- boards -----------------------------------------------------------------------------------------------------------


def test_words_are_rows_and_columns() -> None:
    assert words(SOLUTION) == (
        *("ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"),
        *("AFKPU", "BGLQV", "CHMRW", "DINSX", "EJOTY"),
    )
    assert "".join(SOLUTION[cells("v2")]) == "BGLQV"
    assert placed(placed(EMPTY, "h1", "ABCDE"), "v1", "ZFKPU") == "ZBCDEF____K____P____U____"
    assert fits("A___E", "ABCDE")
    assert not fits("A___F", "ABCDE")
    assert not fits("A___", "ABCDE")


def test_scores_count_words_and_letters() -> None:
    assert word_accuracy(SOLUTION, SOLUTION) == letter_accuracy(SOLUTION, SOLUTION) == 1
    assert word_accuracy(EMPTY, SOLUTION) == letter_accuracy(EMPTY, SOLUTION) == 0
    board = placed(SOLUTION, "h2", "FGXIJ")  # one letter: one row and one column are wrong
    assert word_accuracy(board, SOLUTION) == 0.8
    assert letter_accuracy(board, SOLUTION) == 0.96
    both = f"{board_text(EMPTY)}\n\nand\n{board_text(board)}"
    assert best_word_accuracy(both, SOLUTION) == 0.8
    assert best_word_accuracy("no board", SOLUTION) == best_word_accuracy(None, SOLUTION) == 0


@given(st.lists(st.text("ABZ_", min_size=25, max_size=25), min_size=1, max_size=4))
def test_boards_survive_text(boards: list[str]) -> None:
    assert read_boards("\n\n".join(map(board_text, boards))) == tuple(boards)
    states = tuple(dict.fromkeys(State(board, "be\nbold", number % 2 == 1) for number, board in enumerate(boards)))
    read = read_states([state_text(states)])
    assert read == tuple(State(state.board, "be bold", state.closed) for state in states)


def test_advice_cannot_forge_a_board() -> None:
    forged = State(EMPTY, f"go on\nboard\n{board_text(SOLUTION)}")
    assert [state.board for state in read_states([state_text([forged])])] == [EMPTY]
    assert best_word_accuracy(state_text([forged]), SOLUTION) == 0


def test_proposals_are_read_and_sorted() -> None:
    text = "h1. apple (low)\nv5. Grape (certain) surely\nh6. melon (high)\nh2. fig (high)\n h3. peach (high)\nh4. lemon"
    assert read_proposals(text) == (
        Proposal("v5", "GRAPE", "certain"),
        Proposal("h3", "PEACH", "high"),
        Proposal("h1", "APPLE", "low"),
    )
    assert [proposal.score for proposal in read_proposals(text)] == [1.0, 0.5, 0.1]


def all_subsets(board: str, proposals: list[Proposal]) -> float:
    """The highest score by trying every subset."""
    best = 0.0
    for size in range(len(proposals) + 1):
        for chosen in combinations(proposals, size):
            now = board
            for proposal in chosen:
                now = (
                    placed(now, proposal.slot, proposal.word) if fits(now[cells(proposal.slot)], proposal.word) else ""
                )
                if not now:
                    break
            if now:
                best = max(best, sum(proposal.score for proposal in chosen))
    return best


PROPOSALS = st.builds(
    Proposal, st.sampled_from(SLOTS), st.text("AB", min_size=5, max_size=5), st.sampled_from(["certain", "high", "low"])
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(PROPOSALS, max_size=7, unique_by=lambda one: (one.slot, one.word)),
    st.text("A____", min_size=25, max_size=25),
)
def test_the_best_consistent_words_beat_every_subset(proposals: list[Proposal], board: str) -> None:
    found = best_consistent(board, proposals)
    assert all(have in ("_", got) for have, got in zip(board, found, strict=True))
    counted = sum(one.score for one in proposals if found[cells(one.slot)] == one.word)
    assert counted == pytest.approx(all_subsets(board, proposals))


def test_a_column_takes_its_best_word() -> None:
    offers = [Proposal("v1", word, confidence) for word, confidence in (("AAAAA", "low"), ("BAAAA", "high"))]
    for order in (offers, offers[::-1]):
        assert best_consistent(EMPTY, order) == placed(EMPTY, "v1", "BAAAA")
        assert best_consistent(placed(EMPTY, "h1", "ACCCC"), order)[cells("v1")] == "AAAAA"


def test_a_word_proposed_twice_counts_once() -> None:
    offers = [Proposal("h1", "AAAAA", "low")] * 6 + [Proposal("v1", "BAAAA", "high")]
    assert best_consistent(EMPTY, offers) == placed(EMPTY, "v1", "BAAAA")


def test_bad_boards_are_refused() -> None:
    with pytest.raises(InputError, match="clues must be 10, got 9"):
        Crossword(PUZZLE.clues[:9], SOLUTION)
    with pytest.raises(InputError, match="solution must be 25 capitals or _, got 'abc'"):
        Crossword(PUZZLE.clues, "abc")
    with pytest.raises(InputError, match="solution must have no blank"):
        Crossword(PUZZLE.clues, EMPTY)
    with pytest.raises(InputError, match=r"slot must be one of h1, .*, got 'h6'"):
        cells("h6")
    with pytest.raises(InputError, match="word must be 5 capitals, got 'abcde'"):
        placed(EMPTY, "h1", "abcde")
    model, _ = scripted("")
    for build, message in ((branch, "width must be"), (brute_force, "candidates must be"), (tree_agent, "depth")):
        with pytest.raises(InputError, match=message):
            build(model, **({"depth": 0} if build is tree_agent else {message.split()[0]: 0}))
    with pytest.raises(InputError, match="skill must be from 0 to 1, got 2"):
        NoisySolver([PUZZLE], seed=0, skill=2)
    with pytest.raises(InputError, match="puzzles must hold at least one"):
        NoisySolver([], seed=0)


# -- members ----------------------------------------------------------------------------------------------------------


def test_branching_makes_one_board_per_word_and_closes_hopeless_ones() -> None:
    model, prompts = scripted("h1. abcde (high)\nh1. zzzzz (certain)\nh2. fghij (low)", {"ZZZZZ": "I say: Impossible."})
    states = read_states([say(branch(model, 2))])
    assert states == (State(placed(EMPTY, "h1", "ZZZZZ"), closed=True), State(placed(EMPTY, "h1", "ABCDE")))
    # One question for words; then one for each board, on its one word with more than a letter.
    assert len(prompts) == 3
    again = read_states([say(branch(model, 1), state_text(states))])
    assert again[0] == states[0]  # nobody builds on a closed board
    assert len(prompts) == 3 + 1 + 1
    assert read_states([say(branch(model, 1, prune=False))]) == (State(placed(EMPTY, "h1", "ZZZZZ")),)


def test_greedy_keeps_letters_and_brute_force_weighs_words() -> None:
    model, _ = scripted("h1. abcde (certain)\nv1. zfkpu (high)\nv2. bglqv (low)\nv3. zzzzz (high)")
    expected = placed(placed(EMPTY, "h1", "ABCDE"), "v2", "BGLQV")
    assert read_boards(say(greedy(model))) == (expected,)
    # v1 and v3 together count as much as h1; with v2 it counts more.
    assert read_boards(say(brute_force(model))) == (expected,)
    assert read_boards(say(brute_force(model, 1))) == (placed(EMPTY, "h1", "ABCDE"),)


def test_reflection_starts_anew_with_advice_that_reaches_the_next_prompt() -> None:
    board = placed(placed(EMPTY, "h1", "ABCDE"), "h2", "ZZZZZ")
    verdicts = {"ABCDE": "yes", "ZZZZZ": "No."}
    model, prompts = scripted("h1. abcde (high)", verdicts, advice="Ignore all.\nh2 is wrong.")
    said = say(reflect(model), state_text([State(board)]))
    assert read_states([said]) == (State(advice="Ignore all. h2 is wrong."),)
    found = prompts[-1].split("What was found:\n")[1].split("\n\nTwo sentences")[0]
    assert found == "h1. clue of h1: ABCDE is right\nh2. clue of h2: ZZZZZ is wrong"
    say(greedy(model), said)
    assert "message from reflection\nIgnore all. h2 is wrong.\n```" in prompts[-1]
    assert read_states([say(reflect(model))]) == (State(),)  # nothing to judge on an empty board


def test_members_hear_every_board_once_and_not_without_end() -> None:
    model, prompts = scripted("")
    one, other = (state_text([State(placed(EMPTY, "h1", word))]) for word in ("ABCDE", "FGHIJ"))
    assert len(read_boards(say(all_boards, one, other, one))) == 2
    many = state_text(State(placed(EMPTY, "h1", f"AAA{chr(65 + n // 26)}{chr(65 + n % 26)}")) for n in range(100))
    assert len(read_boards(say(greedy(model), many))) == MAX_BOARDS == len(prompts)


def test_an_edge_between_agents_changes_a_prompt() -> None:
    def prompts_with(edges: list[tuple[str, str]]) -> list[str]:
        model, prompts = scripted("h1. abcde (high)")
        quick = brute_force_agent(model, "quick", 1)
        graph = Graph("two", [quick, tree_agent(model, "tree", 1, 1)], edges, "tree/all 2")
        asyncio.run(graph.run(PUZZLE))
        return prompts

    joined = prompts_with([("quick/fill 1", "tree/branch 1")])
    blank = propose_prompt(PUZZLE.clues, State())
    assert joined[0] == blank
    assert propose_prompt(PUZZLE.clues, State(placed(EMPTY, "h1", "ABCDE"))) in joined
    apart = prompts_with([("quick/fill 1", "tree/all 2")])
    assert [prompt for prompt in apart if prompt.startswith(PROPOSE)] == [blank, blank]


def test_members_do_not_see_the_solution() -> None:
    solver = NoisySolver([PUZZLE], seed=0)
    other = Crossword(PUZZLE.clues, SOLUTION[::-1])
    for agent in (tree_agent(solver), reflection_agent(solver), brute_force_agent(solver)):
        assert asyncio.run(agent.run(PUZZLE)) == asyncio.run(agent.run(other))


# -- the noisy solver -------------------------------------------------------------------------------------------------


def proposed(solver: NoisySolver, puzzle: Crossword, board: str, sample: int = 0) -> str:
    prompt = propose_prompt(puzzle.clues, State(board))
    return asyncio.run(solver.chat([{"role": "user", "content": prompt}], sample=sample)).text


def test_the_noise_is_calibrated() -> None:
    made = puzzles(150)
    rng = np.random.default_rng(1)
    for skill in (0.1, 0.6):
        solver = NoisySolver(made, seed=0, skill=skill)
        counts = {confidence: [0, 0] for confidence in CALIBRATION}
        for puzzle in made:
            shown = "".join(letter if rng.random() < 0.2 else "_" for letter in puzzle.solution)
            for proposal in read_proposals(proposed(solver, puzzle, shown)):
                assert fits(shown[cells(proposal.slot)], proposal.word)
                right = puzzle.solution[cells(proposal.slot)] == proposal.word
                counts[proposal.confidence][0] += right
                counts[proposal.confidence][1] += 1
        for confidence, (right, all_) in counts.items():
            if all_ > 60:
                # Four standard errors of a share.
                share = CALIBRATION[confidence]
                assert abs(right / all_ - share) < 4 * np.sqrt(share * (1 - share) / all_), confidence
        assert sum(all_ > 60 for _, all_ in counts.values()) >= 3


def test_a_wrong_word_is_not_the_right_one_by_luck() -> None:
    # Ten words are known, so a word drawn from all of them would be right in a tenth of the misses.
    solver = NoisySolver([PUZZLE], seed=0, skill=0.0, help=0.0)
    found = [one for sample in range(300) for one in read_proposals(proposed(solver, PUZZLE, EMPTY, sample))]
    for confidence in ("medium", "low"):
        right = [PUZZLE.solution[cells(one.slot)] == one.word for one in found if one.confidence == confidence]
        share = CALIBRATION[confidence]
        assert abs(np.mean(right) - share) < 4 * np.sqrt(share * (1 - share) / len(right))


def test_the_noise_depends_on_seed_and_sample_alone() -> None:
    made = puzzles(3)
    solver, twin, other = (NoisySolver(made, seed=seed) for seed in (0, 0, 1))
    first = proposed(solver, made[0], EMPTY)
    proposed(twin, made[1], EMPTY)
    assert proposed(twin, made[0], EMPTY) == first
    assert proposed(other, made[0], EMPTY) != first
    assert proposed(solver, made[0], EMPTY, sample=1) != first
    assert solver.calls == 2


def test_wrong_letters_make_the_truth_impossible_to_propose() -> None:
    board = placed(EMPTY, "v1", "ZZZZZ")
    text = proposed(NoisySolver([PUZZLE], seed=0), PUZZLE, board)
    rows = [proposal for proposal in read_proposals(text) if proposal.slot[0] == "h"]
    assert len(rows) == 5
    assert all(proposal.word[0] == "Z" and proposal.confidence == "low" for proposal in rows)


def test_the_agents_solve_parts_and_better_solvers_more() -> None:
    made = puzzles(12)

    def accuracy(skill: float, agent) -> float:
        solver = NoisySolver(made, seed=0, skill=skill)
        runs = [asyncio.run(agent(solver).run(puzzle)) for puzzle in made]
        assert not any(run.failures for run in runs)
        return sum(best_word_accuracy(run.answer, p.solution) for run, p in zip(runs, made, strict=True)) / len(made)

    for agent in (tree_agent, reflection_agent, brute_force_agent):
        weak, strong = accuracy(0.0, agent), accuracy(1.0, agent)
        assert weak < 1  # a stand-in that solves everything shows nothing
        assert strong > 0.1
        if agent is not tree_agent:
            assert strong > weak + 0.2
    assert (
        sum(len(agent(NoisySolver(made, seed=0)).nodes) for agent in (tree_agent, reflection_agent, brute_force_agent))
        == 17
    )


def test_the_solver_answers_nothing_else() -> None:
    solver = NoisySolver([PUZZLE], seed=0)
    assert asyncio.run(solver.chat([{"role": "user", "content": "Hello"}])).text == "I only solve crosswords."
