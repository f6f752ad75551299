"""The log itself: reading it, adding the next entry, and the runs beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import disk, guard
from headrace.errors import ConfigError, ConflictError, RejectedError
from headrace.flow import Commit, FileStamp, Receipt, Seal, Snapshot
from headrace.journal import settle
from headrace.journal.state import VERSION, Account, Attempt, State, Written, dump, entry_of, instant, receipt_of
from headrace.ledger import entries, later, refuse_emptying

if TYPE_CHECKING:
    import polars as pl

    from headrace.protocols import Holder

__all__ = ["Journal"]

RUNS_KEPT = 500
_ENTRY = re.compile(r"(\d{10,})\.json")
_ROUNDS = 3


class Journal:
    """The log in `root`. `where` is the target, for messages; `place` says where a data file's name will stand.

    `overwrites`: what a commit adds takes the place of what it removes, so there is nothing to remove.
    """

    def __init__(self, root: Path, *, where: Path, place: Callable[[str], Path], overwrites: bool = False) -> None:
        self.root = root
        self.where = where
        self.place = place
        self.overwrites = overwrites

    @contextlib.contextmanager
    def hold(self, pipeline: str, holder: Holder) -> Iterator[None]:
        """Hold the target for one run, and first finish what a killed one left. See `guard.hold`."""
        with guard.hold(self.root / "lock", pipeline, holder):
            with disk.translated(self.where):
                settle.clear_asides(self)
                settle.finish(self)
            yield

    # reading

    def load(self) -> State:
        """The state after the last entry. Changes nothing. Raises ConfigError, RejectedError."""
        with disk.translated(self.where):
            head = max(self.numbers(self.root), default=0)
            state = self._checkpoint(head)
            for number in range(state.number + 1, head + 1):
                state.advance(self.entry(number))
            return state

    def entry(self, number: int) -> dict[str, Any]:
        """One entry. Raises RejectedError where it is missing, ConfigError where a newer headrace wrote it."""
        try:
            entry: dict[str, Any] = json.loads(self.entry_path(number).read_bytes())
            version = int(entry["version"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise RejectedError(
                f"{self.where}: commit {number} is missing from the log in {self.root.name}, or cannot be read",
                hint="restore the folder from a backup; headrace will not guess",
            ) from None
        if version > VERSION:
            raise ConfigError(
                f"{self.where}: written by a newer headrace (log version {version})", hint="upgrade headrace"
            )
        return entry

    def entry_path(self, number: int) -> Path:
        """Where the entry of that number stands, or will."""
        return self.root / f"{number:010}.json"

    def _checkpoint(self, head: int) -> State:
        for number in sorted(self.numbers(self.root / "checkpoints"), reverse=True):
            if number <= head:
                with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                    content = json.loads((self.root / "checkpoints" / f"{number:010}.json").read_bytes())
                    if content["version"] == VERSION:
                        return State.from_json(content)
        return State()

    @staticmethod
    def numbers(folder: Path) -> list[int]:
        """The numbers of the entries (or checkpoints) in a folder."""
        return [int(found[1]) for name in settle.listed(folder) if (found := _ENTRY.fullmatch(name))]

    def find(self, name: str) -> Path | None:
        """Where the file called `name` is now: still staged, in its place, or retired; None where it has gone.

        It moves in this order and its name is its own for ever, so two rounds see it wherever it went meanwhile.
        """
        base = name.rpartition("/")[2]
        stem = "-".join(base.partition(".")[0].split("-")[:2])
        staged = self.root / "staged" / stem / f"{base}.staged"
        for path in (staged, self.place(name), self.root / "retired" / f"{base}.retired") * 2:
            if path.exists():
                return path
        return None

    def snapshot(self, pipeline: str, state: State, **facts: Any) -> Snapshot:
        """The state as `pipeline` sees it; `facts` are the system's own fields of it."""
        account = state.account(pipeline)

        def seen(source: str, names: Iterable[str] | None) -> Mapping[str, FileStamp]:
            known = account.seen.get(source, {})
            chosen = known if names is None else [name for name in names if name in known]
            return {n: FileStamp(n, *known[n]) for n in chosen}

        return Snapshot(
            **{
                "number": state.number,
                "head": state.last_id,
                "others": frozenset(state.accounts) - {pipeline},
                "record": account.record,
                "positions": account.positions,
                "identities": account.identities,
                "write": account.write,
                "seen": seen,
                "discarded": frozenset(account.discarded),
                "loaded": frozenset(account.loaded),
                **facts,
            }
        )

    # committing

    def apply(self, commit: Commit, write: Callable[[Attempt, State], Written]) -> Receipt:
        """Make `commit` the next entry. `write` drains its rows and stages its files.

        The log has its id: the receipt again. Another number than expected, or a rival who was faster:
        ConflictError, and nothing of the attempt is left.
        """
        with disk.translated(self.where):
            settle.finish(self)
        state = self.load()
        if (number := state.ids.get(commit.id)) is not None:
            return receipt_of(self.entry(number), repeated=True)
        if state.number != commit.expected:
            raise self._conflict(state.number, commit.expected)
        with self._attempt(state.number + 1) as attempt:
            written = write(attempt, state)
            seal = commit.seal()
            for change in commit.changes:
                refuse_emptying(str(self.where), change, written.counts["rows"])
            rejects = self._stage_rejects(attempt, state.account(commit.pipeline), seal)
            entry = entry_of(commit, attempt, written, seal, rejects, after=state.at)
            self._commit(attempt, entry)
        with contextlib.suppress(RejectedError), disk.translated(self.where):
            settle.finish(self)  # it is committed; what cannot be finished now, the next run finishes or complains of
        return receipt_of(entry, repeated=False)

    def settle(self, id: str) -> Receipt | None:
        """The receipt of the commit of this id. Its entry is made in one step, so nothing is under way."""
        number = self.load().ids.get(id)
        return None if number is None else receipt_of(self.entry(number), repeated=True)

    @contextlib.contextmanager
    def _attempt(self, number: int) -> Iterator[Attempt]:
        with disk.translated(self.where):
            for name in ("checkpoints", "rejects", "runs", "staged"):
                disk.make_folder(self.root / name)
            disk.touch(self.root / "readers")
            attempt, alive = self._staging(number)
        try:
            yield attempt
        except BaseException:
            entry = self.entry(number) if self.entry_path(number).exists() else None
            if entry is None or entry["token"] != attempt.token:
                with contextlib.suppress(OSError):
                    disk.remove_tree(attempt.folder)
            raise
        finally:
            os.close(alive)

    def _staging(self, number: int) -> tuple[Attempt, int]:
        """A folder of one's own, and the descriptor whose lock says that its maker lives."""
        while True:
            token = secrets.token_hex(4)
            attempt = Attempt(number=number, token=token, folder=self.root / "staged" / f"{number:010}-{token}")
            disk.make_folder(attempt.folder)
            with contextlib.suppress(FileNotFoundError):  # taken for dead before it was locked: another one
                alive = os.open(attempt.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(alive, fcntl.LOCK_SH)
                if attempt.folder.exists():
                    return attempt, alive
                os.close(alive)

    def _commit(self, attempt: Attempt, entry: Mapping[str, Any]) -> None:
        """All that is staged is on the disk; then the entry, if nobody was faster."""
        path = self.entry_path(attempt.number)
        with disk.translated(self.where):
            disk.sync_folder(attempt.folder)
            try:
                disk.create(path, dump(entry), aside=attempt.folder / "entry")
            except FileExistsError:
                raise self._conflict(attempt.number, attempt.number - 1) from None

    def _conflict(self, number: int, expected: int) -> ConflictError:
        return ConflictError(
            f"{self.where}: the target is at commit {number}, this run began at {expected}",
            hint="another run has moved it; run again",
            details={"number": number, "expected": expected},
        )

    # rejects

    def _stage_rejects(self, attempt: Attempt, account: Account, seal: Seal) -> dict[str, Any]:
        """Stage the quarantine's change. Where earlier rejects leave it, the others are written anew."""
        if seal.rejects is None:
            return {"added": [], "removed": []}
        from headrace.journal import rejects

        name = f"{attempt.stem}.arrow"
        old = [self.reject_path(known) for known in account.rejects]
        rows, rewritten = rejects.write(attempt.staged(name), old, seal.rejects, self.where)
        removed = list(account.rejects) if rewritten else []
        added = [{"name": name, "rows": rows}] if rows else []
        return {
            "added": added,
            "removed": removed,
            "discarded": list(seal.rejects.discarded),
            "loaded": list(seal.rejects.loaded),
            "replace_all": seal.rejects.replace_all,
        }

    def rejects(self, pipeline: str) -> pl.DataFrame:
        """The rows now in quarantine."""
        from headrace.journal import rejects

        for _ in range(_ROUNDS):  # a commit may be rewriting them
            account = self.load().account(pipeline)
            paths = [self.reject_path(name) for name in account.rejects]
            with contextlib.suppress(FileNotFoundError):
                return rejects.read(paths)
        raise RejectedError(f"{self.where}: a file of rejected rows is missing", hint="restore it from a backup")

    def reject_path(self, name: str) -> Path:
        """Where a file of rejects is now."""
        staged = self.root / "staged" / name.removesuffix(".arrow") / f"{name}.staged"
        return staged if staged.exists() else self.root / "rejects" / name

    # for people

    def record(self, run: Mapping[str, Any]) -> None:
        """Keep a run, and the last `RUNS_KEPT`. Nothing is made where there is no log."""
        if not self.root.is_dir():
            return
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", str(run["run"]))
        folder = self.root / "runs"
        with disk.translated(self.where):
            disk.make_folder(folder)
            files = sorted((e.stat().st_mtime_ns, e.path) for e in os.scandir(folder) if e.name.endswith(".json"))
            last = max(self.numbers(self.root), default=0)
            known = ([self.entry(last)] if last else []) + [
                json.loads(Path(path).read_bytes()) for _, path in files[-1:]
            ]
            # Its own instant, by the clock of the entries: a file system's clock may be some milliseconds behind.
            at = later(*(instant(one["at"]) for one in known))
            kept = {**run, "at": at.isoformat(timespec="microseconds")}
            file = folder / f"{name}.json"
            disk.replace(file, dump(kept), aside=folder / f"{name}.aside")
            os.utime(file, (at.timestamp(), at.timestamp()))
            for _, path in files[: 1 - RUNS_KEPT]:
                disk.remove(Path(path))

    def history(self, pipeline: str) -> list[dict[str, Any]]:
        """Commits and runs of `pipeline`, newest first."""
        with disk.translated(self.where):
            commits = [self.entry(number) for number in self.numbers(self.root)]
            runs = [json.loads(path.read_bytes()) for path in (self.root / "runs").glob("*.json")]
        keys = ("number", "id", "run", "write", "positions", "counts", "record")
        mine = [
            (datetime.fromisoformat(e["at"]), {k: e[k] for k in keys}) for e in commits if e["pipeline"] == pipeline
        ]
        return entries(mine, [(datetime.fromisoformat(r["at"]), r) for r in runs if r.get("pipeline") == pipeline])
