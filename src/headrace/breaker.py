"""A circuit breaker: stop asking what keeps failing, and ask again carefully.

               failures in a row                    reset_timeout
    closed ────────────────────────▶ open ────────────────────────▶ half open
      ▲                               ▲                              │     │
      │                               └──────── the probe failed ────┘     │
      └──────────────────────────────────────── the probe succeeded ───────┘

All rules are in `_Circuit`, which knows no clock and no lock; `CircuitBreaker` brings them.
"""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import field
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast

from headrace.errors import CircuitOpenError, ConfigError
from headrace.frozen import frozen
from headrace.retry import check_callable, check_on, is_failure

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CircuitBreaker", "State"]

P = ParamSpec("P")
T = TypeVar("T")
State = Literal["closed", "open", "half_open"]
Outcome = Literal["success", "failure", "neither"]


class _Circuit:
    """The rules. `now` is in seconds on a clock that never goes back.

    Every change of state begins a new era. A call carries the era it was admitted in, and what it has to say
    counts in that era only: a slow call from before the opening neither closes the circuit nor spoils the
    clean slate after recovery.
    """

    def __init__(self, failures: int, reset_timeout: float) -> None:
        self.limit = failures
        self.reset_timeout = reset_timeout
        self.era = 0
        self.is_closed = True
        self.failed = 0  # in a row
        self.tries_at = 0.0  # while open
        self.is_probing = False  # while half open

    def state(self, now: float) -> State:
        if self.is_closed:
            return "closed"
        return "half_open" if self.is_probing or now >= self.tries_at else "open"

    def admit(self, now: float) -> int | None:
        """The era in which a call may begin, None for a refusal."""
        if not self.is_closed:
            if self.is_probing or now < self.tries_at:
                return None
            self.is_probing = True
        return self.era

    def retry_after(self, now: float) -> float:
        """Seconds until a refused call may be tried; 0 while a probe is out: it may end at any time."""
        return 0.0 if self.is_closed else max(0.0, self.tries_at - now)

    def settle(self, era: int, outcome: Outcome, now: float) -> None:
        """A call that was admitted in `era` has ended."""
        if era != self.era:
            return
        if outcome == "neither":  # no evidence: the next caller may probe
            self.is_probing = False
        elif outcome == "success":
            self.failed = 0  # a clean slate
            if not self.is_closed:
                self.close()
        else:
            self.failed += 1
            if not self.is_closed or self.failed >= self.limit:
                self.open(now)

    def open(self, now: float) -> None:
        self.era += 1
        self.is_closed, self.is_probing = False, False
        self.tries_at = now + self.reset_timeout

    def close(self) -> None:
        self.era += 1
        self.is_closed, self.is_probing = True, False


# Which calls this thread or task is in, innermost last: `with breaker:` has nowhere else to keep its era, since
# one breaker serves many threads and may be entered twice by one.
_entered: ContextVar[tuple[tuple[CircuitBreaker, int], ...]] = ContextVar("headrace_breakers", default=())


@frozen(kw_only=True, eq=False)
class CircuitBreaker:
    """Refuses calls for `reset_timeout` seconds after `failures` failures in a row, then lets ONE through.

    Closed: calls pass; a success begins the count anew. Open: calls raise CircuitOpenError at once, which says
    in its message and in ``details["retry_after"]`` (seconds) when it will try again. Half open, once that
    time has come: the first call is the probe, all others are refused until it ends. A probe that succeeds
    closes the circuit with a clean slate; one that fails opens it again for `reset_timeout` seconds.

    Failures are UnavailableError and the types in `on` (see `retry.is_failure`). Anything else that is raised
    (bad data, a missing file, KeyboardInterrupt, another breaker's CircuitOpenError) says nothing about the
    system: it counts neither way, and after such a probe the next call is the probe. The original exception is
    always raised as it was.

    Use it as a decorator (functions and coroutine functions), as ``with breaker:`` or as ``breaker.call(f)``;
    one instance per system that is asked, shared by threads and tasks. `name` stands in the messages. `clock`
    is for tests: seconds, monotonic. Raises ConfigError for settings that make no sense.
    """

    failures: int = 5
    reset_timeout: float = 60.0
    on: tuple[type[Exception], ...] = ()
    name: str = ""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, metadata={"key": None})
    _circuit: _Circuit = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ConfigError(f"circuit breaker: failures is {self.failures}", hint="it opens after 1 or more")
        if not 0 < self.reset_timeout < math.inf:
            raise ConfigError(
                f"circuit breaker: reset_timeout is {self.reset_timeout}", hint="seconds, greater than 0 and finite"
            )
        check_on(self.on, "circuit breaker")
        object.__setattr__(self, "_circuit", _Circuit(self.failures, self.reset_timeout))

    @property
    def state(self) -> State:
        """``closed``, ``open`` or ``half_open`` (the time to try again has come, or a probe is out)."""
        with self._lock:
            return self._circuit.state(self.clock())

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(*args, **kwargs)`` through the breaker. Raises CircuitOpenError, else what it raises."""
        return self(function)(*args, **kwargs)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, each call through the breaker. Raises ConfigError for a generator function."""
        check_callable(function, "a circuit breaker")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def guarded_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", guarded_coroutine)

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return guarded

    def __enter__(self) -> Self:
        with self._lock:
            now = self.clock()
            era = self._circuit.admit(now)
            wait = self._circuit.retry_after(now)
        if era is None:
            raise self._refusal(wait)
        _entered.set((*_entered.get(), (self, era)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        calls = _entered.get()
        at = max((i for i, (breaker, _) in enumerate(calls) if breaker is self), default=None)
        with self._lock:
            if at is None:  # left in another context than entered (an async generator): no evidence, no dead probe
                self._circuit.settle(self._circuit.era, "neither", self.clock())
                return
            _entered.set(calls[:at] + calls[at + 1 :])
            self._circuit.settle(calls[at][1], self._outcome(error), self.clock())

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is None:
            return "success"
        if isinstance(error, CircuitOpenError):  # somebody else's breaker: nobody was asked
            return "neither"
        return "failure" if is_failure(error, self.on) else "neither"

    def _refusal(self, wait: float) -> CircuitOpenError:
        seconds = math.ceil(wait * 1000) / 1000  # rounded up: who waits this long is not refused for a millisecond
        what = f"circuit {self.name!r} is open" if self.name else "the circuit is open"
        if wait > 0:
            message = f"{what}: it will try again in {seconds:g} s"
            hint = f"call again in {seconds:g} s; meanwhile look at why the last {self.failures} call(s) failed"
        else:
            message = f"{what}: it is trying one call now"
            hint = "call again when that one has ended"
        return CircuitOpenError(
            message,
            hint=hint,
            details={"name": self.name, "retry_after": seconds, "failures": self.failures},
        )
