"""Where the bytes of a training step go, by arithmetic; torch is not needed for it."""

from ftcourse.memory.breakdown import PARTS, MemoryBreakdown, show_bytes
from ftcourse.memory.peak import predict_memory, predict_step, predict_timeline
from ftcourse.memory.step import Step

__all__ = ["PARTS", "MemoryBreakdown", "Step", "predict_memory", "predict_step"]
__all__ += ["predict_timeline", "show_bytes"]
