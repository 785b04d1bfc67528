"""The laboratory: studies, checks, runs that resume, and the statistics of their seeds."""

from mindworks.lab.log import RunLog
from mindworks.lab.stats import interval, summary
from mindworks.lab.study import Check, Study, by_seed

__all__ = ["Check", "RunLog", "Study", "by_seed", "interval", "summary"]
