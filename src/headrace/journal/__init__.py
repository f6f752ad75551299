"""The log of a target that is files: numbered entries, each created only if absent.

Parquet folders and single files share it. In the target's log folder:

    0000000007.json               a commit: created by os.link, which fails where a rival was faster
    checkpoints/0000000064.json   the sum of all entries up to there, so that few need reading
    staged/0000000008-1f2e3d4c/   what one attempt at a commit is writing; locked (flock) while it lives
    rejects/0000000007-….arrow    quarantined rows; the log says which of these files count
    retired/                      data files that a commit removed while somebody was reading them
    runs/<run>.json               runs, best effort
    lock, readers                 see `guard.hold` and `lease`

A commit is its entry. Before it, all that the entry names lies staged and fsynced; after it, what is left to do (put
the staged files in their places, remove those that the commit removed) is written in the entry, and whoever comes
next does it again from the start if the first one died (`finish`). The attempt's folder goes last, so a folder that is
there means that something is left to do. It needs no clock: an attempt's folder carries its number and a token. If
the entry of that number has the token, the attempt has won and is finished; if not, and if nobody holds the folder's
lock any more, the attempt is dead and goes. An attempt that has lost and lives removes its own folder.
"""

from headrace.journal.log import Journal
from headrace.journal.settle import lease
from headrace.journal.state import Attempt, State, Written

__all__ = ["Attempt", "Journal", "State", "Written", "lease"]
