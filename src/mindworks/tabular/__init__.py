"""Exact studies on finite Markov decision processes."""

from mindworks.tabular.command_cases import (
    Memory,
    any_command,
    fixed_horizon,
    goal_bandit,
    grid_kernel,
    line_kernel,
    one_goal,
    random_deterministic,
    two_armed,
    vanishing_goal,
    with_memory,
)
from mindworks.tabular.command_extension import CommandExtension, Optimum
from mindworks.tabular.highway import (
    HighwayPolicyRun,
    HighwayValueRun,
    highway_policy_iteration,
    highway_value_iteration,
)
from mindworks.tabular.rwr import RewardWeightedRegression, RWRRun, asymptotic_rate, rwr_step, rwr_weights
from mindworks.tabular.rwr_sampled import LinearSoftmax, SampledRWR, SoftmaxFit, tabular_fit
from mindworks.tabular.udrl import EUDRL, Iterates
from mindworks.tabular.udrl_bounds import (
    StabilityBound,
    critical_states,
    kernel_distance,
    optimal_mass,
    stability_bound,
    unique_bound,
)
from mindworks.tabular.udrl_sampled import SampledEUDRL

__all__ = [
    "EUDRL",
    "CommandExtension",
    "HighwayPolicyRun",
    "HighwayValueRun",
    "Iterates",
    "LinearSoftmax",
    "Memory",
    "Optimum",
    "RWRRun",
    "RewardWeightedRegression",
    "SampledEUDRL",
    "SampledRWR",
    "SoftmaxFit",
    "StabilityBound",
    "any_command",
    "asymptotic_rate",
    "critical_states",
    "fixed_horizon",
    "goal_bandit",
    "grid_kernel",
    "highway_policy_iteration",
    "highway_value_iteration",
    "kernel_distance",
    "line_kernel",
    "one_goal",
    "optimal_mass",
    "random_deterministic",
    "rwr_step",
    "rwr_weights",
    "stability_bound",
    "tabular_fit",
    "two_armed",
    "unique_bound",
    "vanishing_goal",
    "with_memory",
]
