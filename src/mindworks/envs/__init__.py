"""Rollouts of whole populations: one policy per row, one episode per row, every ending told apart."""

from mindworks.envs.batch import BatchEnv, make_batch
from mindworks.envs.delayed import DelayedReward, DelayedRows
from mindworks.envs.lqr import LQREnv, lqr_return
from mindworks.envs.minatar import MinAtarEnv, MinAtarGym
from mindworks.envs.normalizer import RunningNorm
from mindworks.envs.rollout import Actor, Trajectories, rollout

__all__ = [
    "Actor",
    "BatchEnv",
    "DelayedReward",
    "DelayedRows",
    "LQREnv",
    "MinAtarEnv",
    "MinAtarGym",
    "RunningNorm",
    "Trajectories",
    "lqr_return",
    "make_batch",
    "rollout",
]
