"""`python -m mindworks` is the command `mindworks`."""

import sys

from mindworks.cli import main

if __name__ == "__main__":
    sys.exit(main())
