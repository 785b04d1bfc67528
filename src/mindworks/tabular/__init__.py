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
from mindworks.tabular.delayed_tasks import (
    TabularTask,
    choice,
    corridor,
    delayed_choice,
    noisy_bandit,
    random_task,
    slippery_cliff,
    tabulate,
    trace_back,
)
from mindworks.tabular.highway import (
    HighwayPolicyRun,
    HighwayValueRun,
    highway_policy_iteration,
    highway_value_iteration,
)
from mindworks.tabular.multistep_q import AveragedHighway, History, MultistepQ, Setting, episodes_to_optimal
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
    "AveragedHighway",
    "CommandExtension",
    "HighwayPolicyRun",
    "HighwayValueRun",
    "History",
    "Iterates",
    "LinearSoftmax",
    "Memory",
    "MultistepQ",
    "Optimum",
    "RWRRun",
    "RewardWeightedRegression",
    "SampledEUDRL",
    "SampledRWR",
    "Setting",
    "SoftmaxFit",
    "StabilityBound",
    "TabularTask",
    "any_command",
    "asymptotic_rate",
    "choice",
    "corridor",
    "critical_states",
    "delayed_choice",
    "episodes_to_optimal",
    "fixed_horizon",
    "goal_bandit",
    "grid_kernel",
    "highway_policy_iteration",
    "highway_value_iteration",
    "kernel_distance",
    "line_kernel",
    "noisy_bandit",
    "one_goal",
    "optimal_mass",
    "random_deterministic",
    "random_task",
    "rwr_step",
    "rwr_weights",
    "slippery_cliff",
    "stability_bound",
    "tabular_fit",
    "tabulate",
    "trace_back",
    "two_armed",
    "unique_bound",
    "vanishing_goal",
    "with_memory",
]
