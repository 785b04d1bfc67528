"""Image sets, mazes and tasks for agents in the forms they are distributed in. Nothing is downloaded."""

from mindworks.data.digits import digits
from mindworks.data.idx import mnist, read_idx
from mindworks.data.images import Images
from mindworks.data.mazes import MazeArrays, MazeFile, read_mazes, write_mazes

__all__ = ["Images", "MazeArrays", "MazeFile", "digits", "mnist", "read_idx", "read_mazes", "write_mazes"]
