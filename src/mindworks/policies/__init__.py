"""Learning in policy space: value functions that take a policy's parameters as input, and direct policy search."""

from mindworks.core.policy import Policy
from mindworks.policies.cloning import clone
from mindworks.policies.fragments import play_fragments
from mindworks.policies.generator import UDRLPG, GoGePo, GoGePoConfig
from mindworks.policies.gradients import deterministic_objective, state_objective, stochastic_objective
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.pssvf import PSSVF, PSSVFConfig
from mindworks.policies.replay import PolicyReplay
from mindworks.policies.search import NaturalPGPE, Search
from mindworks.policies.td import PAVF, PSVF, TDConfig
from mindworks.policies.training import Training, ascend, evaluate, zero_shot

__all__ = [
    "PAVF",
    "POIS",
    "PSSVF",
    "PSVF",
    "UDRLPG",
    "GoGePo",
    "GoGePoConfig",
    "NaturalPGPE",
    "POISConfig",
    "PSSVFConfig",
    "Policy",
    "PolicyReplay",
    "Search",
    "TDConfig",
    "Training",
    "ascend",
    "clone",
    "deterministic_objective",
    "evaluate",
    "play_fragments",
    "state_objective",
    "stochastic_objective",
    "zero_shot",
]
