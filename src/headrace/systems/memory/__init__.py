"""Memory: the reference source and destination. Plain, eager, obviously right; every other system is judged by it."""

from headrace.systems.memory.destination import MemoryDestination
from headrace.systems.memory.source import MemorySource

__all__ = ["MemoryDestination", "MemorySource"]
