"""Members that solve crosswords with a language model, and the three agents made of them.

Zhuge et al., "Language Agents as Optimizable Graphs", ICML 2024, arXiv:2402.16823: a tree search, a reflection and a
chain of brute-force steps; 17 nodes, and 18 with the decision. Each member takes the boards in the messages it hears,
or an empty one, and says the boards it made of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mindworks.agents._together import together
from mindworks.agents.crossword_prompts import (
    State,
    advise_prompt,
    check_prompt,
    propose_prompt,
    read_states,
    state_text,
    value_prompt,
)
from mindworks.agents.crosswords import (
    BLANK,
    SIDE,
    SLOTS,
    Crossword,
    Proposal,
    best_consistent,
    cells,
    fits,
    placed,
    read_proposals,
    words,
)
from mindworks.agents.graph import Graph, Node
from mindworks.agents.messages import Message
from mindworks.errors import require

if TYPE_CHECKING:
    from mindworks.agents.models import ChatModel

MAX_BOARDS = 64  # of the first that a member hears; the original has no limit, and eight branchings make 256
CANDIDATES = 30  # of one brute-force step
Step = Callable[[Crossword, State], Coroutine[Any, Any, Sequence[State]]]
Member = Callable[[Crossword, tuple[Message, ...]], Coroutine[Any, Any, str]]


def branch(model: ChatModel, width: int = 2, *, prune: bool = True) -> Member:
    """Return a member that makes up to `width` boards of each: one per word, the most confident first.

    With `prune` a new board is closed if the model finds any of its words impossible; a closed board is passed on as it
    is. A word may overwrite letters.
    """
    require(width >= 1, f"width must be at least 1, got {width}")

    async def step(task: Crossword, state: State) -> Sequence[State]:
        if state.closed:
            return [state]
        proposals = (await _proposals(model, task, state))[:width]
        boards = [placed(state.board, proposal.slot, proposal.word) for proposal in proposals]
        hopeless = await together(_hopeless(model, task, board) for board in boards) if prune else [False] * len(boards)
        made = [State(board, state.advice, closed) for board, closed in zip(boards, hopeless, strict=True)]
        return made or [state]

    return _member(step)


def brute_force(model: ChatModel, candidates: int = CANDIDATES) -> Member:
    """Return a member that adds to each board the best words that contradict nothing, of the first `candidates`."""
    require(candidates >= 1, f"candidates must be at least 1, got {candidates}")

    async def step(task: Crossword, state: State) -> Sequence[State]:
        proposals = (await _proposals(model, task, state))[:candidates]
        return [State(best_consistent(state.board, proposals), state.advice)]

    return _member(step)


def greedy(model: ChatModel) -> Member:
    """Return a member that adds words to each board, the most confident first, unless they contradict a letter."""

    async def step(task: Crossword, state: State) -> Sequence[State]:
        board = state.board
        for proposal in await _proposals(model, task, state):
            if fits(board[cells(proposal.slot)], proposal.word):
                board = placed(board, proposal.slot, proposal.word)
        return [State(board, state.advice)]

    return _member(step)


def reflect(model: ChatModel) -> Member:
    """Return a member that judges the words of each board, and passes on an empty one with advice."""

    async def step(task: Crossword, state: State) -> Sequence[State]:
        findings = await _findings(model, task, state.board)
        if not findings:
            return [State()]
        return [State(advice=await _asked(model, advise_prompt(state.board, findings)))]

    return _member(step)


async def all_boards(task: Crossword, messages: tuple[Message, ...]) -> str:
    """Say every board that was heard: the end of the tree search, and the decision of the swarm."""
    return state_text(read_states([message.text for message in messages]))


def tree_agent(model: ChatModel, name: str = "tree", depth: int = 8, width: int = 2) -> Graph:
    """Return the tree search: a chain of `depth` branchings, and all their boards."""
    require(depth >= 1, f"depth must be at least 1, got {depth}")
    return _chain(name, [*(("branch", branch(model, width)) for _ in range(depth)), ("all", all_boards)])


def reflection_agent(model: ChatModel, name: str = "reflection") -> Graph:
    """Return the reflection: two greedy members, one that reflects, and two greedy members again."""
    before, after = [("greedy", greedy(model)) for _ in range(2)], [("greedy", greedy(model)) for _ in range(2)]
    return _chain(name, [*before, ("reflect", reflect(model)), *after])


def brute_force_agent(model: ChatModel, name: str = "brute force", steps: int = 3) -> Graph:
    """Return the chain of brute-force steps."""
    require(steps >= 1, f"steps must be at least 1, got {steps}")
    return _chain(name, [("fill", brute_force(model)) for _ in range(steps)])


def _chain(name: str, members: Sequence[tuple[str, Member]]) -> Graph:
    nodes = [Node(f"{kind} {number}", member) for number, (kind, member) in enumerate(members, 1)]
    names = [node.name for node in nodes]
    return Graph(name, nodes, list(pairwise(names)), names[-1])


def _member(step: Step) -> Member:
    async def member(task: Crossword, messages: tuple[Message, ...]) -> str:
        states = read_states([message.text for message in messages])[:MAX_BOARDS]
        made = await together(step(task, state) for state in states)
        return state_text(dict.fromkeys(state for group in made for state in group))

    return member


async def _asked(model: ChatModel, prompt: str) -> str:
    return (await model.chat([{"role": "user", "content": prompt}], temperature=0.0)).text


async def _proposals(model: ChatModel, task: Crossword, state: State) -> tuple[Proposal, ...]:
    return read_proposals(await _asked(model, propose_prompt(task.clues, state)))


async def _hopeless(model: ChatModel, task: Crossword, board: str) -> bool:
    """Whether the model finds a word of the board impossible; words of one letter are not asked for."""
    known = [pair for pair in zip(task.clues, words(board), strict=True) if pair[1].count(BLANK) < SIDE - 1]
    verdicts = await together(_asked(model, value_prompt(clue, pattern)) for clue, pattern in known)
    return any(_said(verdict) == "impossible" for verdict in verdicts)


async def _findings(model: ChatModel, task: Crossword, board: str) -> list[str]:
    async def finding(slot: str, clue: str, word: str) -> str:
        if BLANK not in word:
            verdict = _said(await _asked(model, check_prompt(clue, word)))
            named = {"yes": "right", "no": "wrong"}.get(verdict)
        else:
            verdict = _said(await _asked(model, value_prompt(clue, word)))
            named = "impossible" if verdict == "impossible" else None
        return f"{slot}. {clue}: {word} is {named}" if named else ""

    triples = zip(SLOTS, task.clues, words(board), strict=True)
    known = [triple for triple in triples if triple[2].count(BLANK) < SIDE - 1]
    return [found for found in await together(finding(*triple) for triple in known) if found]


def _said(verdict: str) -> str:
    """The last word of a verdict, without case and punctuation."""
    found = re.findall(r"[a-z]+", verdict.lower())
    return found[-1] if found else ""
