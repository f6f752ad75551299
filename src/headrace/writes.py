"""The writes: how a batch of rows changes a table. Frozen values; destinations carry them out.

`type` is the tag that a write has in JSON; the fields are the JSON keys.
"""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar

from headrace.errors import ConfigError
from headrace.frozen import frozen

__all__ = ["Append", "History", "Merge", "Partitions", "Recompute", "Replace", "Write"]


@frozen(kw_only=True)
class Append:
    """Add the rows."""

    type: ClassVar[str] = "append"


@frozen(kw_only=True)
class Replace:
    """The rows become the whole table, in one instant: readers never see it partial or empty.

    An empty full read is refused unless `allow_empty`. With `keys` (unique among the rows, never NULL) a destination
    that can deletes what is absent, updates what differs and inserts what is new, rather than write it all again: the
    table is the same afterwards. `truncate`, without keys: a destination that has TRUNCATE uses it; what readers see
    then, `plan` says.
    """

    type: ClassVar[str] = "replace"
    allow_empty: bool = False
    keys: tuple[str, ...] = ()
    truncate: bool = False

    def __post_init__(self) -> None:
        _refuse_text(self)
        if self.keys and self.truncate:
            raise ConfigError(
                'replace: "keys" and "truncate" exclude each other: by keys only what differs is touched',
                hint="leave one of them out",
            )


@frozen(kw_only=True)
class Partitions:
    """Replace the partitions that the batch touches: all rows whose `by` columns equal those of a new row.

    A batch should bring whole partitions: one more row of an earlier partition replaces all that it had. A source's
    cursor must be among `by`; its last partition is then read again whole.
    """

    type: ClassVar[str] = "partitions"
    by: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_text(self)
        _refuse_empty(self.type, "by", self.by)


@frozen(kw_only=True)
class Merge:
    """Update the rows whose `keys` (default: the source's primary key) exist, insert the others.

    `latest_by` settles repeated keys, in the batch AND against the target: the row with the greatest
    `latest_by` stays, so a late older row or a replay never overwrites a newer one (NULL is the oldest; of
    equal ones the last read wins). Without it the last read wins. `delete_when` is an SQL boolean expression
    over the row: a winning row for which it is TRUE deletes its key, and the deletion is remembered, so that
    an older row read later does not bring it back. A NULL key is a violation. Columns that the rows do not
    have keep their values.
    """

    type: ClassVar[str] = "merge"
    keys: tuple[str, ...] = ()
    latest_by: tuple[str, ...] = ()
    delete_when: str | None = None

    def __post_init__(self) -> None:
        _refuse_text(self)
        if self.delete_when is not None and not self.delete_when.strip():
            raise ConfigError('merge: "delete_when" is empty', hint="leave it out, or write e.g. \"op = 'D'\"")


@frozen(kw_only=True)
class History:
    """Keep every version of each key (slowly changing dimension, type 2).

    Adds `valid_from` and `valid_to` (half-open; NULL: still valid), taken from the first `latest_by` column,
    else from the commit's time. Only a change in a `track` column (default: all but keys and `latest_by`)
    makes a version. Late versions go in between. A key that returns comes back as a new version. A key that
    is absent from a complete full read is closed when `close_absent`; that of a row in quarantine is not absent, that
    of one that was discarded is.
    """

    type: ClassVar[str] = "history"
    keys: tuple[str, ...]
    track: tuple[str, ...] = ()
    latest_by: tuple[str, ...] = ()
    valid_from: str = "valid_from"
    valid_to: str = "valid_to"
    close_absent: bool = False

    def __post_init__(self) -> None:
        _refuse_text(self)
        _refuse_empty(self.type, "keys", self.keys)
        if not (self.valid_from and self.valid_to) or self.valid_from == self.valid_to:
            raise ConfigError(
                'history: "valid_from" and "valid_to" must be two names', hint="leave them out, or give each its own"
            )


@frozen(kw_only=True)
class Recompute:
    """Rebuild the groups that the new rows touch, from everything read so far.

    Groups are the `by` values of the transform's result over the new rows and over the former images of the
    same rows (where the source knows them: files by `latest`; `plan` says which does not). The target's rows of those
    groups are replaced by those of the transform over all rows.
    """

    type: ClassVar[str] = "recompute"
    by: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_text(self)
        _refuse_empty(self.type, "by", self.by)


def _refuse_text(write: Write) -> None:
    """A text is a sequence too, of columns of one letter each."""
    for one in fields(write):
        if isinstance(getattr(write, one.name), str) and str(one.type).startswith("tuple"):
            raise ConfigError(
                f"{write.type}: {one.name} names columns, and is one text", hint=f'write {one.name}=("id",)'
            )


def _refuse_empty(write: str, key: str, columns: tuple[str, ...]) -> None:
    if not columns:
        raise ConfigError(f'{write}: "{key}" names no column', hint='name some, or write the whole table: "replace"')


Write = Append | Replace | Partitions | Merge | History | Recompute
