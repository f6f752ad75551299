"""The circuit breaker: one test for each rule, one machine for all of them together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.breaker import CircuitBreaker
from headrace.errors import CircuitOpenError, ConfigError, DataError, UnavailableError
from headrace.retry import Retry


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def breaker(clock: FakeClock, **settings: object) -> CircuitBreaker:
    return CircuitBreaker(**{"failures": 3, "reset_timeout": 60.0, "clock": clock, **settings})  # type: ignore[arg-type]


def fail(error: BaseException | None = None) -> None:
    raise error or UnavailableError("not now")


def fail_times(circuit: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(UnavailableError):
            circuit.call(fail)


def opened(clock: FakeClock, **settings: object) -> CircuitBreaker:
    circuit = breaker(clock, **settings)
    fail_times(circuit, circuit.failures)
    assert circuit.state == "open"
    return circuit


def test_it_opens_after_failures_in_a_row(clock: FakeClock) -> None:
    circuit = breaker(clock)
    fail_times(circuit, 2)
    assert circuit.state == "closed"
    fail_times(circuit, 1)
    assert circuit.state == "open"


def test_a_success_begins_the_count_anew(clock: FakeClock) -> None:
    circuit = breaker(clock)
    fail_times(circuit, 2)
    circuit.call(int)
    fail_times(circuit, 2)
    assert circuit.state == "closed"


def test_an_open_circuit_asks_nobody(clock: FakeClock) -> None:
    circuit = opened(clock)
    asked: list[int] = []
    with pytest.raises(CircuitOpenError):
        circuit.call(asked.append, 1)
    assert asked == []


def test_it_says_in_seconds_when_it_will_try_again(clock: FakeClock) -> None:
    circuit = opened(clock, name="warehouse")
    clock.now += 47.5
    with pytest.raises(CircuitOpenError) as caught:
        circuit.call(int)
    assert caught.value.message == "circuit 'warehouse' is open: it will try again in 12.5 s"
    assert "12.5 s" in caught.value.hint
    assert caught.value.details == {"name": "warehouse", "retry_after": 12.5, "failures": 3}
    assert caught.value.exit_code == 4


def test_who_waits_as_long_as_told_is_let_in(clock: FakeClock) -> None:
    circuit = opened(clock, reset_timeout=0.1234567)
    with pytest.raises(CircuitOpenError) as caught:
        circuit.call(int)
    clock.now += caught.value.details["retry_after"]
    assert circuit.call(int) == 0


def test_nothing_of_a_failure_stands_in_the_refusal(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1)
    with pytest.raises(UnavailableError):
        circuit.call(fail, UnavailableError("secret 4711"))
    with pytest.raises(CircuitOpenError) as caught:
        circuit.call(int)
    assert "4711" not in str(caught.value.to_dict())
    assert caught.value.__context__ is None


def test_a_probe_that_succeeds_closes_it_with_a_clean_slate(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60
    assert circuit.state == "half_open"
    circuit.call(int)
    assert circuit.state == "closed"
    fail_times(circuit, 2)
    assert circuit.state == "closed", "one failure after recovery must not open it again"


def test_a_probe_that_fails_opens_it_again_for_the_whole_time(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 90
    fail_times(circuit, 1)
    assert circuit.state == "open"
    clock.now += 59.9
    assert circuit.state == "open"
    clock.now += 0.1
    assert circuit.state == "half_open"


def test_of_twenty_threads_at_half_open_exactly_one_probes(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60
    together, refused = threading.Barrier(20), threading.Semaphore(0)
    probes: list[int] = []

    def probe() -> None:
        probes.append(1)
        for _ in range(19):  # stays out until all the others have been refused
            assert refused.acquire(timeout=30)

    def call(_n: int) -> str:
        together.wait(timeout=30)
        try:
            circuit.call(probe)
        except CircuitOpenError as error:
            refused.release()
            return str(error.details["retry_after"])
        return "probe"

    with ThreadPoolExecutor(20) as pool:
        answers = sorted(pool.map(call, range(20)))
    assert probes == [1]
    assert answers == ["0.0"] * 19 + ["probe"]
    assert circuit.state == "closed"


def test_failures_of_many_threads_are_all_counted(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=200)

    def call(_n: int) -> None:
        for _ in range(10):
            with pytest.raises(UnavailableError):
                circuit.call(fail)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(call, range(20)))
    assert circuit.state == "open"


def test_a_late_failure_from_before_the_opening_does_not_spoil_the_clean_slate(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1)

    def slow() -> None:
        fail_times(circuit, 1)
        clock.now += 60
        circuit.call(int)
        fail()

    with pytest.raises(UnavailableError):
        circuit.call(slow)
    assert circuit.state == "closed"


def test_a_late_success_from_before_the_opening_does_not_close_it(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1)
    circuit.call(fail_times, circuit, 1)
    assert circuit.state == "open"


@pytest.mark.parametrize(
    "error", [DataError("rows"), ConfigError("wrong"), FileNotFoundError("x"), KeyboardInterrupt()]
)
def test_what_says_nothing_about_the_system_counts_neither_way(clock: FakeClock, error: BaseException) -> None:
    circuit = breaker(clock)
    fail_times(circuit, 2)
    for _ in range(9):
        with pytest.raises(type(error)):
            circuit.call(fail, error)
    assert circuit.state == "closed"
    fail_times(circuit, 1)
    assert circuit.state == "open", "and it is no success either"


def test_after_a_probe_that_says_nothing_the_next_call_is_the_probe(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60
    with pytest.raises(KeyboardInterrupt):
        circuit.call(fail, KeyboardInterrupt())
    assert circuit.state == "half_open"
    circuit.call(int)
    assert circuit.state == "closed"


def test_types_that_the_user_names_are_failures(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1, on=(ConnectionError,))
    with pytest.raises(ConnectionResetError):
        circuit.call(fail, ConnectionResetError())
    assert circuit.state == "open"


def test_another_breakers_refusal_is_not_a_failure_of_this_one(clock: FakeClock) -> None:
    inner, outer = opened(clock), breaker(clock, failures=1)
    with pytest.raises(CircuitOpenError):
        outer.call(inner.call, int)
    assert outer.state == "closed"


def test_the_original_exception_is_raised_as_it_was(clock: FakeClock) -> None:
    error = UnavailableError("this one")
    with pytest.raises(UnavailableError) as caught:
        breaker(clock).call(fail, error)
    assert caught.value is error


def test_it_is_a_context_manager(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1)
    with pytest.raises(UnavailableError), circuit:
        fail()
    with pytest.raises(CircuitOpenError), circuit:
        pytest.fail("the block of an open circuit ran")


def test_it_can_be_entered_within_itself(clock: FakeClock) -> None:
    circuit = breaker(clock, failures=1)
    with circuit, circuit:
        pass
    assert circuit.state == "closed"


def test_it_is_a_decorator(clock: FakeClock) -> None:
    @breaker(clock, failures=1)
    def fetch(url: str) -> str:
        """Fetch it."""
        return url

    assert fetch("a") == "a"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")


def test_of_many_tasks_at_half_open_exactly_one_probes(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60
    probes: list[int] = []

    @circuit
    async def probe() -> None:
        probes.append(1)
        for _ in range(5):
            await asyncio.sleep(0)

    async def main() -> list[object]:
        return await asyncio.gather(*(probe() for _ in range(20)), return_exceptions=True)

    answers = asyncio.run(main())
    assert probes == [1]
    assert sum(isinstance(a, CircuitOpenError) for a in answers) == 19
    assert circuit.state == "closed"


def test_a_cancelled_probe_gives_its_place_back(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60

    async def main() -> None:
        task = asyncio.create_task(circuit.call(asyncio.sleep, 3600))
        await asyncio.sleep(0)
        assert circuit.state == "half_open"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    circuit.call(int)
    assert circuit.state == "closed"


def test_a_block_left_in_another_context_leaves_no_dead_probe(clock: FakeClock) -> None:
    circuit = opened(clock)
    clock.now += 60
    threading.Thread(target=circuit.__enter__).run()
    thread = threading.Thread(target=circuit.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    circuit.call(int)
    assert circuit.state == "closed"


def test_a_retry_around_a_breaker_waits_until_it_tries_again(clock: FakeClock) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    circuit = opened(clock, reset_timeout=20.0)
    retry = Retry(clock=clock, sleep=sleep, random=lambda: 0.0)
    assert retry.call(circuit(int)) == 0
    assert slept == [20.0]


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"reset_timeout": 0}, {"reset_timeout": float("inf")}, {"on": OSError}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker(**wrong)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_generator_is_refused() -> None:
    def rows():
        yield 1

    with pytest.raises(ConfigError, match="generator"):
        CircuitBreaker()(rows)


class CircuitMachine(RuleBasedStateMachine):
    """Calls that begin and end in any order, beside a model that remembers every event and derives the state."""

    @initialize(failures=st.integers(1, 4))
    def start(self, failures: int) -> None:
        self.clock = FakeClock()
        self.failures = failures
        self.circuit = CircuitBreaker(failures=failures, reset_timeout=10.0, clock=self.clock)
        self.running: list[tuple[CircuitCall, object]] = []
        self.phase: object = object()  # a new one at each change of state
        self.opened_at: float | None = None
        self.streak = 0
        self.probe: CircuitCall | None = None

    @rule(seconds=st.sampled_from([0.5, 5.0, 9.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        call = CircuitCall(self.circuit)
        allowed = self.opened_at is None or (self.probe is None and self.clock.now >= self.opened_at + 10.0)
        assert call.begin() == allowed
        if allowed:
            self.running.append((call, self.phase))
            if self.opened_at is not None:
                self.probe = call

    @rule(which=st.integers(0, 99), outcome=st.sampled_from(["success", "failure", "failure", "neither"]))
    def a_call_ends(self, which: int, outcome: str) -> None:
        if not self.running:
            return
        call, phase = self.running.pop(which % len(self.running))
        call.end({"success": None, "failure": UnavailableError("x"), "neither": DataError("x")}[outcome])
        if phase is not self.phase:
            return
        if self.opened_at is None:
            self.streak = {"success": 0, "failure": self.streak + 1, "neither": self.streak}[outcome]
            if self.streak == self.failures:
                self.phase, self.opened_at = object(), self.clock.now
        else:
            assert call is self.probe
            self.probe = None
            if outcome == "success":
                self.phase, self.opened_at, self.streak = object(), None, 0
            elif outcome == "failure":
                self.phase, self.opened_at = object(), self.clock.now

    @invariant()
    def the_state_is_the_models(self) -> None:
        if not hasattr(self, "circuit"):
            return
        if self.opened_at is None:
            expected = "closed"
        elif self.probe is not None or self.clock.now >= self.opened_at + 10.0:
            expected = "half_open"
        else:
            expected = "open"
        assert self.circuit.state == expected


class CircuitCall:
    """One call through a breaker in a context of its own, as a task has one."""

    def __init__(self, circuit: CircuitBreaker) -> None:
        from contextvars import copy_context

        self.circuit = circuit
        self.context = copy_context()

    def begin(self) -> bool:
        try:
            self.context.run(self.circuit.__enter__)
        except CircuitOpenError:
            return False
        return True

    def end(self, error: Exception | None) -> None:
        self.context.run(self.circuit.__exit__, type(error) if error else None, error, None)


CircuitMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTheCircuitKeepsItsRules = CircuitMachine.TestCase
