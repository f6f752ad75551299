"""A network between a client and its server, which can be cut, reset, slowed and stopped at any byte.

with Proxy(host, port) as proxy:
    proxy.fault = Fault(to="server", after=1_000, how="reset")   # once, when so many bytes have passed
    …connect to 127.0.0.1, proxy.port…
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Literal, Self

__all__ = ["Fault", "Proxy"]

Side = Literal["server", "client"]
_CHUNK = 4096
_STALL_SECONDS = 0.5
_LINGER_NOT = struct.pack("ii", 1, 0)  # close sends RST


@dataclass(frozen=True)
class Fault:
    """What happens to the bytes that go `to` a side, once, when `after` of them have passed over all connections.

    ``cut`` closes both ends in order, ``reset`` with RST; ``half`` closes one direction only; ``stall`` lets nothing
    through for a while; ``slow`` passes on bit by bit from there; ``lose`` closes the client's end when the server has
    had all that it was sent: the answer is lost, the effect is not.
    """

    to: Side
    after: int
    how: Literal["cut", "reset", "half", "stall", "slow", "lose"]


class Proxy:
    """Listens on 127.0.0.1, `port`. `passed` are the bytes that have gone to each side so far."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed: dict[Side, int] = {"server": 0, "client": 0}
        self.fault: Fault | None = None
        self.struck = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._deaf: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        for end in ends:
            end.close()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._place)
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
            self._start(self._pump, client, server, "server")
            self._start(self._pump, server, client, "client")

    def _pump(self, here: socket.socket, there: socket.socket, to: Side) -> None:
        try:
            while data := _received(here):
                if not self._pass(here, there, to, data):
                    return
            there.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):  # a closed socket has no number to wait for
            pass
        finally:
            for end in (here, there):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD if end is here else socket.SHUT_WR)

    def _pass(self, here: socket.socket, there: socket.socket, to: Side, data: bytes) -> bool:
        """Pass bytes on, up to the fault and from there as it says; whether this direction goes on."""
        if there in self._deaf:
            return True
        with self._lock:
            fault, before = self.fault, self.passed[to]
            self.passed[to] += len(data)
            strikes = fault is not None and fault.to == to and before <= fault.after < before + len(data)
            if strikes:
                self.fault, self.struck = None, self.struck + 1
        if not strikes or fault is None:
            there.sendall(data)
            return True
        cut = fault.after - before
        client, server = (here, there) if to == "server" else (there, here)
        if fault.how == "lose":
            self._deaf.add(client)
        there.sendall(data if fault.how == "lose" else data[:cut])
        match fault.how:
            case "stall":
                time.sleep(_STALL_SECONDS)
            case "slow":
                for n in range(cut, min(len(data), cut + 50)):
                    there.sendall(data[n : n + 1])
                    time.sleep(0.001)
                cut += 50
            case "half":
                there.shutdown(socket.SHUT_WR)
                return False
            case _:
                if fault.how == "lose":
                    time.sleep(0.05)  # the server reads and acts
                _close(client, reset=fault.how == "reset")
                _close(server, reset=fault.how == "reset")
                return False
        there.sendall(data[cut:])
        return True


def _received(here: socket.socket) -> bytes:
    """The next bytes. Never blocked for long: a socket that another thread closes sends its RST only then."""
    waiting = select.poll()  # select knows no descriptor beyond 1,023
    waiting.register(here, select.POLLIN)
    while True:
        if waiting.poll(20):
            return here.recv(_CHUNK)


def _close(end: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        else:
            end.shutdown(socket.SHUT_RDWR)
        end.close()
