"""Retry: call again what was not available, and nothing else.

    @hr.Retry(attempts=3)                    retry = hr.Retry(timeout=60)          hr.Retry().call(fetch, url)
    def fetch(url): …                        for attempt in retry:
                                                 with attempt:
                                                     …

One pure function, `Retry.pause`, decides; the three doors only wait. The last error is raised itself: a caller
catches what failed, never a wrapper.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import field
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, cast

from headrace.errors import CircuitOpenError, ConfigError, HeadraceError, UnavailableError
from headrace.frozen import frozen

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Attempt", "Retry", "RetryDetails", "RetryHook", "is_failure"]

P = ParamSpec("P")
T = TypeVar("T")

# They will say the same the next time. `on=(OSError,)` must not mean "a missing file, five times".
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError, HeadraceError)
# DB-API's class for bad SQL, in every driver: told by name, since no driver is imported here.
_BAD_SQL = "ProgrammingError"


def is_failure(error: BaseException, on: tuple[type[Exception], ...] = ()) -> bool:
    """Whether `error` says "not now": an UnavailableError, or one of `on`.

    What will say the same the next time (a missing file, missing rights, bad SQL, every other HeadraceError)
    is a failure only where `on` names it as closely as that: ``on=(OSError,)`` leaves FileNotFoundError out,
    ``on=(FileNotFoundError,)`` does not. KeyboardInterrupt and the like never are.
    """
    if isinstance(error, UnavailableError):
        return True
    named = [kind for kind in on if isinstance(error, kind)]
    if isinstance(error, _LASTING):
        return any(issubclass(kind, _LASTING) and kind is not HeadraceError for kind in named)
    if _is_bad_sql(type(error)):
        return any(_is_bad_sql(kind) for kind in named)
    return isinstance(error, Exception) and bool(named)


def _is_bad_sql(kind: type) -> bool:
    return any(c.__name__ == _BAD_SQL for c in kind.__mro__)


def check_on(on: tuple[type[Exception], ...], owner: str) -> None:
    """Refuse an `on` that is not a tuple of exception classes. Raises ConfigError."""
    if not isinstance(on, tuple) or not all(isinstance(k, type) and issubclass(k, Exception) for k in on):
        raise ConfigError(
            f"{owner}: `on` must be a tuple of exception classes",
            hint="write on=(ConnectionError,); KeyboardInterrupt and SystemExit are never caught",
        )


def check_callable(function: Callable[..., Any], owner: str) -> None:
    """Refuse a generator: it returns before it does anything, and half a stream cannot be begun again."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{owner} cannot wrap the generator {getattr(function, '__qualname__', function)!r}",
            hint="wrap the function that drains it: a half-drained stream cannot be taken up again",
        )


@frozen(kw_only=True)
class RetryDetails:
    """What a hook is told before each wait. Seconds throughout.

    `name` is the function's qualified name, ``""`` in a ``for`` loop. `attempt` is the one that has failed,
    counted from 1. `error` is what it raised: its text may hold anything, do not log it unseen.
    """

    name: str
    attempt: int
    attempts: int
    error: Exception
    wait: float
    elapsed: float


class RetryHook(Protocol):
    """Called before each wait, in the caller's thread. What it raises ends the retrying."""

    def __call__(self, details: RetryDetails) -> None:
        """An attempt has failed and another one follows."""
        ...


class Attempt:
    """One attempt of a ``for attempt in retry`` loop: a context manager that keeps an error worth a retry."""

    def __init__(self, number: int, waits: Callable[[BaseException], float | None]) -> None:
        self.number = number
        self._waits = waits
        self.wait: float | None = None
        self.error: Exception | None = None
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.ended = True
        if isinstance(error, Exception) and (wait := self._waits(error)) is not None:
            self.wait, self.error = wait, error
            return True
        return False

    def __repr__(self) -> str:
        return f"Attempt(number={self.number})"


@frozen(kw_only=True)
class Retry:
    """How often and how long to try again what was not available.

    `attempts` counts the first one. The wait after attempt n is ``wait_initial * 2 ** (n - 1)`` seconds, at
    most `wait_max`, of which a random share of up to `jitter` (0 to 1) is left out, so that callers that
    failed together do not come back together, at the ceiling neither. `timeout` is the total in seconds since
    the first attempt began: a wait that would end beyond it is not begun. An attempt is never interrupted.

    Retried are UnavailableError and the types in `on` (see `is_failure`). An open circuit that says when it
    will try again is waited for as long as that, and given up at once when that is longer than `wait_max`.

    `on_retry` is told before each wait. `clock`, `sleep` and `random` are for tests: seconds on a monotonic
    clock, a wait (an awaitable one is awaited), a number in [0, 1).

    Frozen, without state: one instance may serve any number of callables and threads. Works on functions and
    on coroutine functions. Raises ConfigError for settings that make no sense, else only what is called
    raises.
    """

    attempts: int = 5
    wait_initial: float = 0.5
    wait_max: float = 30.0
    jitter: float = 0.5
    timeout: float | None = None
    on: tuple[type[Exception], ...] = ()
    on_retry: RetryHook | None = field(default=None, compare=False, metadata={"key": None})
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False, metadata={"key": None})
    sleep: Callable[[float], Any] | None = field(default=None, repr=False, compare=False, metadata={"key": None})
    random: Callable[[], float] = field(default=random.random, repr=False, compare=False, metadata={"key": None})

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"retry: attempts is {self.attempts}", hint="1 means: no retry")
        if not 0 <= self.wait_initial <= self.wait_max:
            raise ConfigError(
                f"retry: wait_initial is {self.wait_initial} and wait_max {self.wait_max}",
                hint="seconds, 0 ≤ wait_initial ≤ wait_max",
            )
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"retry: jitter is {self.jitter}", hint="the share of a wait that is random: 0 to 1")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"retry: timeout is {self.timeout}", hint="seconds in all, or none")
        check_on(self.on, "retry")

    def pause(self, error: BaseException, *, attempt: int, elapsed: float) -> float | None:
        """Seconds to wait before the next attempt, None for no further one.

        `attempt` is the one that has just failed with `error`, counted from 1; `elapsed` the seconds since the
        first one began.
        """
        if attempt >= self.attempts or not is_failure(error, self.on):
            return None
        wait = min(self.wait_max, self.wait_initial * 2.0 ** min(attempt - 1, 64))  # 2.0 ** 1024 would overflow
        wait *= 1.0 - self.jitter * self.random()
        if isinstance(error, CircuitOpenError):
            opens = float(error.details.get("retry_after", 0.0))
            if opens > self.wait_max:
                return None
            wait = max(wait, opens)
        if self.timeout is not None and elapsed + wait > self.timeout:
            return None
        return wait

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, retried at each call. Raises ConfigError for a generator function."""
        check_callable(function, "a retry")
        name = getattr(function, "__qualname__", "")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def retried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                async for attempt in self._attempts_async(name):
                    with attempt:
                        return await function(*args, **kwargs)
                raise AssertionError("an attempt neither returned nor raised")

            return cast("Callable[P, T]", retried_coroutine)

        @wraps(function)
        def retried(*args: P.args, **kwargs: P.kwargs) -> T:
            for attempt in self._attempts(name):
                with attempt:
                    return function(*args, **kwargs)
            raise AssertionError("an attempt neither returned nor raised")

        return retried

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(*args, **kwargs)``, retried."""
        return self(function)(*args, **kwargs)

    def __iter__(self) -> Iterator[Attempt]:
        """Attempts for ``for attempt in retry: with attempt: …``; the loop ends with the first that succeeds."""
        return self._attempts("")

    def __aiter__(self) -> AsyncIterator[Attempt]:
        """The same for ``async for``; the waits are asyncio's."""
        return self._attempts_async("")

    def _attempts(self, name: str) -> Iterator[Attempt]:
        began = self.clock()
        for number in range(1, self.attempts + 1):
            attempt = self._attempt(number, began)
            yield attempt
            if (wait := self._next(attempt, name, began)) is None:
                return
            (self.sleep or time.sleep)(wait)

    async def _attempts_async(self, name: str) -> AsyncIterator[Attempt]:
        import asyncio  # 60 ms: only those pay who have it anyway

        began = self.clock()
        for number in range(1, self.attempts + 1):
            attempt = self._attempt(number, began)
            yield attempt
            if (wait := self._next(attempt, name, began)) is None:
                return
            slept = (self.sleep or asyncio.sleep)(wait)
            if inspect.isawaitable(slept):
                await slept

    def _attempt(self, number: int, began: float) -> Attempt:
        return Attempt(number, lambda error: self.pause(error, attempt=number, elapsed=self.clock() - began))

    def _next(self, attempt: Attempt, name: str, began: float) -> float | None:
        """The wait after `attempt`, None when it succeeded; the hook is told."""
        if not attempt.ended:
            raise RuntimeError("an attempt was not entered: write `for attempt in retry:` and `with attempt:` in it")
        error, attempt.error = attempt.error, None  # or its traceback keeps the caller's frame alive
        if error is None or attempt.wait is None:
            return None
        if self.on_retry is not None:
            elapsed = self.clock() - began
            self.on_retry(
                RetryDetails(
                    name=name,
                    attempt=attempt.number,
                    attempts=self.attempts,
                    error=error,
                    wait=attempt.wait,
                    elapsed=elapsed,
                )
            )
        return attempt.wait
