"""What is tried again, how long it waits, and what comes out when it gives up. No test here sleeps."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError, dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import (
    CircuitOpenError,
    ConfigError,
    ConflictError,
    ContractError,
    HeadraceError,
    RejectedError,
    TransformError,
    UnavailableError,
)
from headrace.retry import Retry, RetryDetails, is_failure


@dataclass
class FakeClock:
    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class ProgrammingError(Exception):
    """As every DB-API driver has one."""


class Script:
    """A callable that raises what it is told, in order, and then answers."""

    def __init__(self, *errors: BaseException, clock: FakeClock | None = None, takes: float = 0.0) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.clock = clock
        self.takes = takes

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls += 1
        if self.clock is not None:
            self.clock.now += self.takes
        if self.errors:
            raise self.errors.pop(0)
        return args, kwargs


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def retry(clock: FakeClock, **settings: object) -> Retry:
    return Retry(clock=clock.time, sleep=clock.sleep, random=lambda: 0.0, **settings)  # type: ignore[arg-type]


def gone() -> UnavailableError:
    return UnavailableError("not now")


def test_what_was_not_available_is_called_again_and_answers(clock: FakeClock) -> None:
    script = Script(gone(), gone())
    assert retry(clock).call(script, 1, key=2) == ((1,), {"key": 2})
    assert script.calls == 3


def test_waits_double_up_to_the_ceiling(clock: FakeClock) -> None:
    script = Script(*[gone() for _ in range(5)])
    retry(clock, attempts=6, wait_initial=1.0, wait_max=5.0).call(script)
    assert clock.slept == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_after_the_last_attempt_nothing_is_waited_for(clock: FakeClock) -> None:
    with pytest.raises(UnavailableError):
        retry(clock, attempts=3).call(Script(*[gone() for _ in range(9)]))
    assert len(clock.slept) == 2


def test_the_last_error_is_raised_itself(clock: FakeClock) -> None:
    errors = [gone() for _ in range(3)]
    with pytest.raises(UnavailableError) as caught:
        retry(clock, attempts=3).call(Script(*errors))
    assert caught.value is errors[-1]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("a.csv"),
        PermissionError("a.csv"),
        OSError("disk"),
        ProgrammingError("syntax"),
        ConfigError("wrong"),
        ContractError("rows"),
        ConflictError("held"),
        TransformError("yours"),
        RejectedError("full"),
        ValueError("x"),
        HeadraceError("any"),
    ],
)
def test_what_will_say_the_same_again_is_raised_at_once(clock: FakeClock, error: Exception) -> None:
    script = Script(error)
    with pytest.raises(type(error)) as caught:
        retry(clock).call(script)
    assert caught.value is error
    assert (script.calls, clock.slept) == (1, [])


def test_types_that_the_user_names_are_tried_again(clock: FakeClock) -> None:
    script = Script(ConnectionResetError(), TimeoutError())
    retry(clock, on=(ConnectionError, TimeoutError)).call(script)
    assert script.calls == 3


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("x"), IsADirectoryError("x")])
def test_naming_oserror_does_not_mean_a_missing_file(clock: FakeClock, error: OSError) -> None:
    with pytest.raises(type(error)):
        retry(clock, on=(OSError,)).call(Script(error))
    assert clock.slept == []


def test_naming_exception_means_neither_bad_sql_nor_a_config_error() -> None:
    assert is_failure(ValueError(), (Exception,))
    assert not is_failure(ProgrammingError(), (Exception,))
    assert not is_failure(ConfigError("x"), (Exception,))
    assert not is_failure(ConfigError("x"), (HeadraceError,))


def test_bad_sql_in_duckdb_is_known_by_its_class() -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as con, pytest.raises(duckdb.Error) as caught:
        con.execute("SELEC 1")
    assert not is_failure(caught.value, (duckdb.Error,))
    assert is_failure(duckdb.OperationalError("lost"), (duckdb.Error,))


def test_a_missing_file_is_tried_again_when_it_is_named_itself() -> None:
    assert is_failure(FileNotFoundError(), (FileNotFoundError,))
    assert is_failure(ConflictError("held"), (ConflictError,))
    assert is_failure(ProgrammingError(), (ProgrammingError,))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_keyboard_interrupt_passes(clock: FakeClock, kind: type[BaseException]) -> None:
    script = Script(kind())
    with pytest.raises(kind):
        retry(clock, on=(Exception,)).call(script)
    assert script.calls == 1


def test_a_keyboard_interrupt_while_waiting_passes(clock: FakeClock) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    script = Script(gone())
    with pytest.raises(KeyboardInterrupt):
        Retry(clock=clock.time, sleep=interrupted).call(script)
    assert script.calls == 1


def test_a_timeout_never_begins_a_wait_that_ends_beyond_it(clock: FakeClock) -> None:
    script = Script(*[gone() for _ in range(9)])
    with pytest.raises(UnavailableError):
        retry(clock, attempts=9, wait_initial=1.0, wait_max=60.0, timeout=7.5).call(script)
    assert clock.slept == [1.0, 2.0, 4.0]
    assert clock.now <= 107.5


def test_a_timeout_counts_the_attempts_own_time(clock: FakeClock) -> None:
    script = Script(*[gone() for _ in range(9)], clock=clock, takes=5.0)
    with pytest.raises(UnavailableError):
        retry(clock, attempts=9, wait_initial=1.0, timeout=10.0).call(script)
    assert script.calls == 2


def test_the_timeout_begins_anew_with_each_call(clock: FakeClock) -> None:
    again = retry(clock, attempts=3, wait_initial=1.0, timeout=3.0)
    for _ in range(3):
        again.call(Script(gone(), gone()))
    assert clock.slept == [1.0, 2.0] * 3


def test_an_open_circuit_is_waited_for_until_it_tries_again(clock: FakeClock) -> None:
    retry(clock).call(Script(CircuitOpenError("open", details={"retry_after": 12.5})))
    assert clock.slept == [12.5]


def test_a_circuit_that_stays_open_longer_than_wait_max_is_given_up_at_once(clock: FakeClock) -> None:
    with pytest.raises(CircuitOpenError):
        retry(clock, wait_max=10.0).call(Script(CircuitOpenError("open", details={"retry_after": 10.1})))
    assert clock.slept == []


def test_a_circuit_whose_time_has_come_is_waited_for_as_any_other(clock: FakeClock) -> None:
    retry(clock, wait_initial=1.0).call(Script(CircuitOpenError("probing", details={"retry_after": 0.0})))
    assert clock.slept == [1.0]


@given(
    attempts=st.integers(1, 2000),
    initial=st.floats(0, 10),
    ceiling=st.floats(10, 1000),
    jitter=st.floats(0, 1),
    random=st.floats(0, 1, exclude_max=True),
    attempt=st.integers(1, 2000),
)
def test_a_wait_is_never_negative_and_never_above_the_ceiling(
    *, attempts: int, initial: float, ceiling: float, jitter: float, random: float, attempt: int
) -> None:
    policy = Retry(attempts=attempts, wait_initial=initial, wait_max=ceiling, jitter=jitter, random=lambda: random)
    wait = policy.pause(gone(), attempt=attempt, elapsed=0.0)
    assert (wait is None) == (attempt >= attempts)
    assert wait is None or 0 <= wait <= ceiling


def test_jitter_spreads_waits_at_the_ceiling_too() -> None:
    waits = {
        Retry(wait_max=30.0, attempts=99, random=lambda r=r: r).pause(gone(), attempt=50, elapsed=0.0)
        for r in (0.0, 0.5, 0.9)
    }
    assert waits == {30.0, 22.5, 16.5}


def test_a_loop_with_attempts_retries_its_block(clock: FakeClock) -> None:
    script = Script(gone(), gone())
    numbers = []
    for attempt in retry(clock):
        with attempt:
            numbers.append(attempt.number)
            script()
    assert numbers == [1, 2, 3]


def test_a_loop_raises_the_last_error_itself(clock: FakeClock) -> None:
    error = gone()

    def loop() -> None:
        for attempt in retry(clock, attempts=2):
            with attempt:
                raise error

    with pytest.raises(UnavailableError) as caught:
        loop()
    assert caught.value is error


def test_a_loop_whose_attempts_are_not_entered_says_so(clock: FakeClock) -> None:
    with pytest.raises(RuntimeError, match="with attempt"):
        list(retry(clock))


def test_a_loop_can_be_left_early(clock: FakeClock) -> None:
    seen = 0
    for attempt in retry(clock):
        with attempt:
            seen += 1
            break
    assert seen == 1


def test_a_decorated_function_keeps_its_name_and_answers(clock: FakeClock) -> None:
    failures = [gone()]

    @retry(clock)
    def fetch(url: str) -> str:
        """Fetch it."""
        if failures:
            raise failures.pop()
        return url

    assert fetch("a") == "a"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")


def test_a_coroutine_is_retried(clock: FakeClock) -> None:
    failures = [gone(), gone()]

    @retry(clock, wait_initial=1.0)
    async def fetch() -> int:
        if failures:
            raise failures.pop()
        return 7

    assert asyncio.run(fetch()) == 7
    assert clock.slept == [1.0, 2.0]


def test_an_awaitable_sleep_is_awaited() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> int:
        failures = [gone()]
        async for attempt in Retry(sleep=sleep, jitter=0):
            with attempt:
                if failures:
                    raise failures.pop()
                return attempt.number
        return 0

    assert asyncio.run(main()) == 2
    assert slept == [0.5]


def test_a_generator_is_refused_since_half_a_stream_cannot_be_begun_again() -> None:
    def rows():
        yield 1

    with pytest.raises(ConfigError, match="generator"):
        Retry()(rows)


def test_a_hook_is_told_before_each_wait_and_only_then(clock: FakeClock) -> None:
    told: list[RetryDetails] = []
    errors = [gone(), gone(), gone()]
    policy = retry(clock, attempts=3, wait_initial=1.0, on_retry=told.append)
    script = Script(*errors)
    with pytest.raises(UnavailableError):
        policy.call(script)
    assert [(d.attempt, d.attempts, d.wait, d.elapsed) for d in told] == [(1, 3, 1.0, 0.0), (2, 3, 2.0, 1.0)]
    assert [d.error for d in told] == errors[:2]
    with pytest.raises(FrozenInstanceError):
        told[0].wait = 0.0  # type: ignore[misc]


def test_a_hook_is_told_the_functions_name(clock: FakeClock) -> None:
    names: list[str] = []
    failures = [gone()]

    def fetch() -> None:
        if failures:
            raise failures.pop()

    retry(clock, on_retry=lambda d: names.append(d.name)).call(fetch)
    assert names == [fetch.__qualname__]


def test_one_retry_serves_calls_within_calls(clock: FakeClock) -> None:
    policy = retry(clock, attempts=2, wait_initial=1.0)
    outer = [gone()]

    def call() -> object:
        if outer:
            raise outer.pop()
        return policy.call(Script(gone()))

    policy.call(call)
    assert clock.slept == [1.0, 1.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"wait_initial": -1},
        {"wait_initial": 2, "wait_max": 1},
        {"jitter": 1.1},
        {"jitter": float("nan")},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"on": [OSError]},
        {"on": (KeyboardInterrupt,)},
        {"on": (OSError("instance"),)},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Retry(**settings)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_retry_is_a_frozen_value() -> None:
    assert Retry(attempts=3) == Retry(attempts=3)
    with pytest.raises(FrozenInstanceError):
        Retry().attempts = 2  # type: ignore[misc]
