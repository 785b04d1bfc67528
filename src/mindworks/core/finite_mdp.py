"""Finite Markov decision processes, batched: the two forms, their linear solves, and examples.

`FiniteMDP` holds dense transitions, `DeterministicMDP` an index; both evaluate policies, give occupancies and the
optimum. `four_rooms`, `grid_world`, `chain` and `garnet` make processes.
"""

from mindworks.core.mdp import MDP, DeterministicMDP, FiniteMDP
from mindworks.core.mdp_examples import chain, four_rooms, garnet, grid_world
from mindworks.core.mdp_solve import solve_occupancy, solve_value

__all__ = [
    "MDP",
    "DeterministicMDP",
    "FiniteMDP",
    "chain",
    "four_rooms",
    "garnet",
    "grid_world",
    "solve_occupancy",
    "solve_value",
]
