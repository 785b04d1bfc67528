"""Graphs and societies of language agents: members that speak text, and edges that learn whom to listen to.

Names load on first use: graphs, decisions and language models need neither torch nor numpy.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "budget": ("Account", "Budget", "BudgetExceeded"),
    "cache": ("Cache",),
    "choices": ("Verdict", "judge_choice", "read_choice", "read_choice_original", "read_letter"),
    "crossword_members": ("all_boards", "brute_force_agent", "reflection_agent", "tree_agent"),
    "crossword_solver": ("NoisySolver",),
    "crosswords": ("Crossword", "best_word_accuracy"),
    "curves": ("curves_svg",),
    "decisions": ("FirstAnswer", "MajorityVote", "RandomChoice", "References", "SelectBest", "SelfConsistency"),
    "drawing": ("to_mermaid", "to_svg"),
    "edge_optimizer": ("PAPER", "EdgeDistribution", "EdgeOptimizer", "EdgeSettings", "optimize_edges"),
    "edges": ("EdgeSpace",),
    "files": ("Folders",),
    "graph": ("Graph", "Node", "Run", "model_node", "run_all", "run_sync"),
    "memo": ("Memo",),
    "messages": ("Message", "quoted", "unquoted"),
    "models": ("LLM", "ChatModel", "FunctionModel", "ModelError", "Reply", "Usage", "image_part"),
    "pricing": ("Price",),
    "prompts": ("DemonstrationBandit", "Example", "Prompt", "PromptLearner", "PromptSettings", "optimize_prompt"),
    "ranking": ("NodeRanking",),
    "sandbox": ("Limits", "Result", "SandboxUnavailable", "run_python"),
    "scoring": ("code_program", "exact_match", "final_answer", "gaia_match", "passes", "similarity"),
    "serve": ("GraphAnswers", "ServerLimits", "SocietyAnswers", "application", "serving"),
    "society": (
        "Chief",
        "Democracy",
        "Expert",
        "Judge",
        "Liar",
        "Market",
        "Mindstorm",
        "Monarchy",
        "Person",
        "Question",
        "Society",
        "Speaker",
        "Transcript",
        "train_readers",
    ),
    "storm_protocol": ("MindstormProtocol", "ask_alone"),
    "swarm": ("Evaluation", "Swarm", "evaluate", "utilities"),
    "task_swarm": ("TaskSwarm",),
    "tools": ("Tool", "file_tools", "python_tool", "use_tools"),
    "voters": ("Voters", "simulated_voters"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"mindworks.agents.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mindworks.agents' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
