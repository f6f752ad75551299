"""What every destination promises, as tests."""

from headrace.testing.destination.applying import Applying
from headrace.testing.destination.changing import Changing
from headrace.testing.destination.failing import Failing
from headrace.testing.destination.remembering import Remembering
from headrace.testing.destination.sharing import Sharing
from headrace.testing.destination.writing import Writing

__all__ = ["DestinationSuite"]


class DestinationSuite(Applying, Writing, Remembering, Sharing, Changing, Failing):
    """Subclass it as ``class TestMine(DestinationSuite)`` and write `destination`.

    A test of a write is made for the writes that the destination supports.
    """
