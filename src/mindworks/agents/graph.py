"""Graphs of language agents: nodes that say one text each, edges that carry it on, and graphs that nest.

Zhuge, Wang, Kirsch, Faccio, Khizbullin and Schmidhuber, "Language Agents as Optimizable Graphs", ICML 2024,
arXiv:2402.16823. A graph is (nodes, edges, function of each node, output node); node n computes f_n(z_n, x) from the
task x and the texts z_n of its predecessors.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar

from mindworks.agents.memo import Memo, NodeFunction, text_of
from mindworks.agents.messages import Message, quoted
from mindworks.errors import require

if TYPE_CHECKING:
    from mindworks.agents.models import Chat, ChatModel

Value = TypeVar("Value")


@dataclass(frozen=True)
class Node:
    """A member of a graph: `await function(task, messages)` is what it says; `messages` come from its predecessors."""

    name: str
    """one printable line"""
    function: NodeFunction
    """async; whatever it raises is recorded as this node's failure"""
    needs_messages: bool = False
    """fail instead of running on nothing where there are predecessors and all of them failed"""

    def __post_init__(self) -> None:
        _require_name(self.name)
        require(callable(self.function), f"function of node {self.name!r} must be callable, got {self.function!r}")


@dataclass(frozen=True)
class Run:
    """What happened when a graph ran on one task; keys are the paths of nodes."""

    answer: str | None
    """text of the output node; None where it failed, and then its failure says why"""
    outputs: dict[str, str]
    """text of every node that did not fail"""
    failures: dict[str, str]
    """`Type: message` of what each failing node raised; its successors ran without its message"""
    calls: int
    """node calls that this run made, failed ones too"""
    shared: int = 0
    """node calls that it did not make because a memo had the text, or another run's call on its way"""


@dataclass(frozen=True)
class _Outcome:
    text: str | None
    failure: str = ""
    calls: int = 1
    shared: int = 0


class Graph:
    """A directed acyclic graph of nodes and of graphs, with one output.

    `edges` are pairs (from, to) of names. A graph among `nodes` stands for its own nodes: an edge to it goes to its
    sources, an edge from it leaves its output, and `outer/inner` names a node in it. Nodes that do not wait for each
    other run at the same time. Messages arrive in the order of `nodes`, whatever the order of `edges`, so equal
    graphs write equal prompts. Raises `InputError` that names the fault: no node, a name twice, an edge to nowhere,
    the nodes of a cycle, a node with no path to the output.
    """

    def __init__(self, name: str, nodes: Sequence[Node | Graph], edges: Iterable[tuple[str, str]], output: str) -> None:
        _require_name(name)
        self.name = name
        require(len(nodes) > 0, f"nodes of graph {name!r} must hold at least one, got none")
        self.nodes = tuple(leaf for member in nodes for leaf in leaves(member))
        """the nodes, those of nested graphs too, named by their paths"""
        self.paths = tuple(node.name for node in self.nodes)
        """names of the nodes; canonical: the order in which messages arrive"""
        self._index = {path: index for index, path in enumerate(self.paths)}
        graphs = {member.name: member for member in nodes if isinstance(member, Graph)}
        require_distinct([*self.paths, *(member.name for member in nodes if isinstance(member, Graph))])
        joined = {pair for edge in edges for pair in self._ends(edge, graphs)}
        inner = {
            (self._index[f"{name}/{start}"], self._index[f"{name}/{end}"])
            for name, graph in graphs.items()
            for start, end in graph.edges
        }
        self.links = tuple(sorted(joined | inner))
        """edges as pairs of indices into `nodes`, sorted"""
        self.output = self.paths[self._outlet(output, graphs, "output")]
        """path of the node whose text is the answer"""
        self._heard: list[list[int]] = [[] for _ in self.nodes]
        for start, end in self.links:
            self._heard[end].append(start)
        cycle = " -> ".join(self.paths[index] for index in find_cycle(len(self.nodes), self.links))
        require(not cycle, f"edges of graph {name!r} must form no cycle, got {cycle}")
        self._order = tuple(TopologicalSorter(dict(enumerate(self._heard))).static_order())
        connected = reaching(self._index[self.output], self.links)
        lost = [path for index, path in enumerate(self.paths) if index not in connected]
        require(not lost, f"every node must have a path to the output {self.output!r}, got none from {_list(lost)}")

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs (from, to) of paths, sorted by the order of the nodes."""
        return tuple((self.paths[start], self.paths[end]) for start, end in self.links)

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the nodes without predecessors."""
        return tuple(path for path, heard in zip(self.paths, self._heard, strict=True) if not heard)

    def predecessors(self, path: str) -> tuple[str, ...]:
        """Return the paths whose messages the node at `path` receives, in the order of their arrival."""
        require(path in self._index, f"path must be one of {_list(self.paths)}, got {path!r}")
        return tuple(self.paths[index] for index in self._heard[self._index[path]])

    async def run(self, task: Any, memo: Memo | None = None) -> Run:
        """Run every node once on `task`, each as soon as its predecessors are done; a `memo` shares calls with others.

        Never raises for a node: see `Run.failures`. Cancelled, it cancels its nodes and waits for them.
        """
        steps: dict[int, asyncio.Task[_Outcome]] = {}
        async with asyncio.TaskGroup() as group:
            for index in self._order:
                heard = [(self.paths[other], steps[other]) for other in self._heard[index]]
                step = _step(self.nodes[index], task, heard, memo)
                steps[index] = group.create_task(step, name=self.paths[index])
        done = {path: steps[index].result() for index, path in enumerate(self.paths)}
        outputs = {path: outcome.text for path, outcome in done.items() if outcome.text is not None}
        failures = {path: outcome.failure for path, outcome in done.items() if outcome.text is None}
        calls, shared = (sum(getattr(outcome, kind) for outcome in done.values()) for kind in ("calls", "shared"))
        return Run(outputs.get(self.output), outputs, failures, calls, shared)

    def run_sync(self, task: Any, memo: Memo | None = None) -> Run:
        """Return what `run` returns, from code that is not async; also inside a running loop, such as a notebook's."""
        return run_sync(self.run(task, memo))

    def _outlet(self, name: str, graphs: dict[str, Graph], what: str) -> int:
        path = f"{name}/{graphs[name].output}" if name in graphs else name
        known = [*self.paths, *graphs]
        require(path in self._index, f"{what} of graph {self.name!r} must name one of {_list(known)}, got {name!r}")
        return self._index[path]

    def _ends(self, edge: tuple[str, str], graphs: dict[str, Graph]) -> Iterable[tuple[int, int]]:
        pair = isinstance(edge, Sequence) and not isinstance(edge, str) and len(edge) == 2
        require(pair, f"edges of graph {self.name!r} must be pairs of names, got {edge!r}")
        start, end = edge
        outlet = self._outlet(start, graphs, "edges")
        if end in graphs:
            return [(outlet, self._index[f"{end}/{source}"]) for source in graphs[end].sources]
        return [(outlet, self._outlet(end, graphs, "edges"))]


def model_node(
    name: str,
    model: ChatModel,
    prompt: str | Callable[[Any, tuple[Message, ...]], Chat],
    *,
    sample: int = 0,
    **settings: Any,
) -> Node:
    """Return a node whose text is the reply of `model`.

    A string `prompt` is the system message; the user message is the task (a string, or a list of content parts such as
    images) and then the messages, quoted as data. A function `prompt(task, messages)` writes the whole chat. Nodes with
    equal prompts need different `sample` numbers to be independent draws: a cache tells them apart by it. `settings`
    go to `model.chat`.
    """

    async def reply(task: Any, messages: tuple[Message, ...]) -> str:
        if isinstance(prompt, str):
            chat: Chat = [
                {"role": "system", "content": prompt},
                {"role": "user", "content": content_of(task, messages)},
            ]
        else:
            chat = prompt(task, messages)
        return (await model.chat(chat, sample=sample, **settings)).text

    return Node(name, reply)


async def run_all(runs: Iterable[tuple[Graph, Any]], *, memo: Memo | None = None, concurrency: int = 1000) -> list[Run]:
    """Run pairs of (graph, task), at most `concurrency` at a time; returns one `Run` per pair, in their order."""
    require(concurrency >= 1, f"concurrency must be at least 1, got {concurrency}")
    pending = list(enumerate(runs))[::-1]
    done: list[Run | None] = [None] * len(pending)

    async def work() -> None:
        while pending:
            index, (graph, task) = pending.pop()
            done[index] = await graph.run(task, memo)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(pending))):
            group.create_task(work())
    return [run for run in done if run is not None]


def run_sync(work: Coroutine[Any, Any, Value]) -> Value:
    """Return the value of the coroutine `work`; where a loop already runs in this thread, it runs in another thread.

    An interrupt of this thread, such as a notebook's stop button, cancels `work` and waits for it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    value: Future[Value] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def main() -> Value:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work

    def thread() -> None:
        try:
            value.set_result(asyncio.run(main()))
        except BaseException as error:
            value.set_exception(error)

    context = contextvars.copy_context()
    runner = threading.Thread(target=context.run, args=(thread,), daemon=True)
    runner.start()
    try:
        return value.result()
    except KeyboardInterrupt:
        loop, task = started.result()
        with suppress(RuntimeError):  # the loop is closed: the work has just ended
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        runner.join()


def find_cycle(nodes: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return the nodes of a cycle of `links`, in its direction and the first again at the end; empty where none is."""
    heard: dict[int, list[int]] = {node: [] for node in range(nodes)}
    for start, end in links:
        heard[end].append(start)
    try:
        TopologicalSorter(heard).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def reaching(sink: int, links: Iterable[tuple[int, int]]) -> set[int]:
    """Return the nodes from which a path of `links` leads to `sink`, with `sink`."""
    before: dict[int, list[int]] = {}
    for start, end in links:
        before.setdefault(end, []).append(start)
    found, open_ = {sink}, [sink]
    while open_:
        new = [node for node in before.get(open_.pop(), []) if node not in found]
        found.update(new)
        open_.extend(new)
    return found


async def _step(node: Node, task: Any, heard: list[tuple[str, asyncio.Task[_Outcome]]], memo: Memo | None) -> _Outcome:
    # to await a step itself would hand this one's cancellation on to it, where a node may swallow it
    if pending := [step for _, step in heard if not step.done()]:
        await asyncio.wait(pending)
    said = [(path, step.result().text) for path, step in heard]
    messages = tuple(Message(path, text) for path, text in said if text is not None)
    if node.needs_messages and heard and not messages:
        return _Outcome(None, f"no message: every predecessor failed ({_list(path for path, _ in heard)})", calls=0)
    made = True
    try:
        if memo is None:
            text = await text_of(node.function, task, messages)
        else:
            saying, made = memo.call(node.name, node.function, task, messages)
            text = await saying
        return _Outcome(text, "", int(made), int(not made))
    except (Exception, asyncio.CancelledError) as error:
        running = asyncio.current_task()
        # where nobody cancelled the run, something inside the node was cancelled, and that is a failure like others
        if isinstance(error, asyncio.CancelledError) and running is not None and running.cancelling():
            raise
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        return _Outcome(None, reason, int(made), int(not made))


def content_of(task: Any, messages: tuple[Message, ...]) -> str | list[Any]:
    """Return the content of a user message: the task, a string or a list of content parts, then the messages quoted."""
    told = quoted(messages)
    if isinstance(task, str):
        return f"{task}\n\n{told}" if told else task
    require(isinstance(task, list), f"task must be a string or a list of content parts, got {task!r}")
    return [*task, {"type": "text", "text": told}] if told else list(task)


def leaves(member: Node | Graph) -> list[Node]:
    """Return the nodes of a member of a graph, named by their paths."""
    require(isinstance(member, (Node, Graph)), f"nodes must be of type Node or Graph, got {member!r}")
    if isinstance(member, Node):
        return [member]
    return [replace(node, name=f"{member.name}/{node.name}") for node in member.nodes]


def _require_name(name: object) -> None:
    named = isinstance(name, str) and bool(name.strip()) and name.isprintable()
    require(named, f"name must be one printable line, got {name!r}")


def require_distinct(names: Sequence[str]) -> None:
    """Raise `InputError` that lists the names that stand in `names` more than once."""
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    require(not twice, f"names of nodes must be distinct, got {_list(twice)} more than once")


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
