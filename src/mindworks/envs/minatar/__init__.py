"""The five MinAtar games, N side by side, with the rules of the package and none of its code.

K. Young and T. Tian, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
Experiments", arXiv:1903.03176, 2019. Each game is one file of three functions on the numbers of one row: `start`, `act`
and `draw`.
"""

from mindworks.envs.minatar.rows import GAMES, MinAtarEnv
from mindworks.envs.minatar.single import MinAtarGym

__all__ = ["GAMES", "MinAtarEnv", "MinAtarGym"]
