"""Deep multi-step off-policy learning on stable-baselines3: Highway DQN and its rivals. Needs the extra `rl`."""

from mindworks.errors import import_extra

import_extra("stable_baselines3", "rl")

from mindworks.core.targets import Target  # noqa: E402
from mindworks.multistep.dqn import HighwayDQN  # noqa: E402
from mindworks.multistep.extractor import GridExtractor  # noqa: E402
from mindworks.multistep.replay import SequenceReplayBuffer, Sequences  # noqa: E402
from mindworks.multistep.sum_tree import SumTree  # noqa: E402
from mindworks.multistep.training import Training  # noqa: E402
from mindworks.multistep.vec_env import RowVecEnv  # noqa: E402

__all__ = [
    "GridExtractor",
    "HighwayDQN",
    "RowVecEnv",
    "SequenceReplayBuffer",
    "Sequences",
    "SumTree",
    "Target",
    "Training",
]
