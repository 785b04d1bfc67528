"""Image sets in the forms they are distributed in. Nothing is downloaded."""

from mindworks.data.digits import digits
from mindworks.data.idx import mnist, read_idx
from mindworks.data.images import Images

__all__ = ["Images", "digits", "mnist", "read_idx"]
