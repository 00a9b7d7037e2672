"""A run of several processes, which accelerate starts; each measures what it holds in memory."""

from ftcourse.ranks.launch import RanksResult, run_ranks
from ftcourse.ranks.meter import RankMeter

__all__ = ["RankMeter", "RanksResult", "run_ranks"]
