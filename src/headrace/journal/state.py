"""What a log adds up to, and what an entry of it says. Values: nothing here touches a disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.flow import Commit, Receipt, Seal
from headrace.frozen import frozen
from headrace.ledger import later
from headrace.schema import Schema

__all__ = ["VERSION", "Account", "Attempt", "State", "Written", "dump", "entry_of", "instant", "receipt_of"]

VERSION = 1


@dataclass(kw_only=True)
class Account:
    """What is remembered of one pipeline. `rejects` maps the live reject files to their rows;
    `discarded` are the ids of those that were given up, `loaded` of those that a replay has appended.
    """

    record: dict[str, Any] = field(default_factory=dict)
    write: str | None = None
    positions: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    discarded: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class State:
    """The sum of all entries: what the target is after commit `number`.

    `data` maps the live data files' names to what is known of them (``rows``, ``bytes``, ``schema``: an index into
    `schemas`, and what the system adds). `ids` maps each commit's id to its number; `at` is the last one's instant.
    """

    number: int = 0
    at: str | None = None
    ids: dict[str, int] = field(default_factory=dict)
    schemas: list[list[dict[str, str]]] = field(default_factory=list)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    @property
    def schema(self) -> Schema | None:
        """The table's logical schema (None: there is no table)."""
        return Schema.from_json(self.schemas[-1]) if self.schemas else None

    @property
    def last_id(self) -> str | None:
        """The id of the last commit, whoever made it."""
        return next(reversed(self.ids), None)

    def account(self, pipeline: str) -> Account:
        """What is remembered of `pipeline`."""
        return self.accounts.get(pipeline) or Account()

    def advance(self, entry: Mapping[str, Any]) -> None:
        """Add the next entry."""
        self.number, self.at = entry["number"], entry["at"]
        self.ids[entry["id"]] = self.number
        if entry["schema"] is not None and (not self.schemas or self.schemas[-1] != entry["schema"]):
            self.schemas.append(entry["schema"])
        for name in entry["removed"]:
            del self.data[name]
        for file in entry["added"]:
            about = {key: value for key, value in file.items() if key != "name"}
            self.data[file["name"]] = {**about, "schema": len(self.schemas) - 1}
        account = self.accounts.setdefault(entry["pipeline"], Account())
        account.write = entry["write"] or account.write
        account.record = entry["record"]
        if entry["forget_files"]:
            for known in (account.positions, account.identities, account.seen):
                known.clear()
        account.positions.update(entry["positions"])
        account.identities.update(entry["identities"])
        for source, stamps in entry["seen"].items():
            account.seen.setdefault(source, {}).update({name: [size, version] for name, size, version in stamps})
        for name in entry["rejects"]["removed"]:
            del account.rejects[name]
        account.discarded += entry["rejects"].get("discarded", [])
        if entry["rejects"].get("replace_all"):
            account.loaded.clear()
        account.loaded += entry["rejects"].get("loaded", [])
        account.rejects.update({file["name"]: file["rows"] for file in entry["rejects"]["added"]})

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> State:
        """From a checkpoint."""
        known = {key: value for key, value in content.items() if key != "version"}
        accounts = {name: Account(**account) for name, account in known.pop("accounts").items()}
        return State(**known, accounts=accounts)


@frozen(kw_only=True)
class Written:
    """What a system has staged for one commit. `added` are its data files, each with ``name``, ``rows``, ``bytes``."""

    added: Sequence[Mapping[str, Any]]
    removed: Sequence[str]
    schema: Schema | None
    write: str | None
    counts: Mapping[str, int]


@frozen(kw_only=True)
class Attempt:
    """One attempt at a commit: its number, its token and its folder."""

    number: int
    token: str
    folder: Path

    @property
    def stem(self) -> str:
        """What the names of all its files begin with."""
        return f"{self.number:010}-{self.token}"

    def staged(self, name: str) -> Path:
        """Where the file that will be called `name` is written: not under that name, which a glob might match."""
        return self.folder / f"{name.rpartition('/')[2]}.staged"


def instant(text: str | None) -> datetime | None:
    """An instant as an entry has it."""
    return None if text is None else datetime.fromisoformat(text)


def dump(content: Mapping[str, Any]) -> bytes:
    """As it is kept on disk."""
    return json.dumps(content, ensure_ascii=False, default=str).encode()


def receipt_of(entry: Mapping[str, Any], *, repeated: bool) -> Receipt:
    """What the entry says of its commit."""
    return Receipt(
        id=entry["id"], number=entry["number"], counts=entry["counts"], record=entry["record"], repeated=repeated
    )


def entry_of(
    commit: Commit, attempt: Attempt, written: Written, seal: Seal, rejects: Mapping[str, Any], *, after: str | None
) -> dict[str, Any]:
    """The entry that makes the attempt a commit, later than the one before it, which was made at `after`."""
    return {
        "version": VERSION,
        "number": attempt.number,
        "token": attempt.token,
        "id": commit.id,
        "pipeline": commit.pipeline,
        "run": commit.run,
        "at": later(instant(after)).isoformat(timespec="microseconds"),
        "write": written.write,
        "schema": None if written.schema is None else written.schema.to_json(),
        "positions": dict(seal.positions),
        "identities": dict(seal.identities),
        "record": dict(seal.record),
        "counts": {**written.counts, "rejected": 0 if seal.rejects is None else seal.rejects.count},
        "added": [dict(file) for file in written.added],
        "removed": list(written.removed),
        "seen": {name: [[s.name, s.size, s.version] for s in stamps] for name, stamps in seal.files.items()},
        "forget_files": seal.forget_files,
        "rejects": dict(rejects),
    }
