"""The processes of a run: servers, and load generators that measure when they are asked to.

All of them end with the `ExitStack` that they were started in, whatever happens.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TypeAlias

from _workload import Sample

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 60.0
"""How much longer than it should take a measurement may take: requests that hang end by then."""
_PORTS = range(20_000, 30_000)


Process: TypeAlias = "subprocess.Popen[bytes]"


class PeerFailed(Exception):
    """A process ended, or did not do what it was asked to; the reason is for people."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on just now.

    They are none of those that the kernel gives to connections that are dialled, so that a server
    which is down for a while finds its port free again.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                sockets.append(one)
            if len(sockets) == count:
                return [one.getsockname()[1] for one in sockets]
    raise PeerFailed(f"fewer than {count} ports are free")


class Processes:
    """Starts processes whose logs and files are in one directory."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.directory = directory
        self._stack = stack

    def serve(self, name: str, command: Sequence[str], port: int) -> Process:
        """Start a server and wait until it accepts connections."""
        process = self.start(name, command)
        end = time.monotonic() + START_SECONDS_MAX
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > end:
                raise PeerFailed(f"{name} did not start: {_last_line(self._log(name))}")
            time.sleep(0.02)
        return process

    def generator(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Generator:
        """Start a load generator."""
        process = self.start(name, command, environment, talks=True)
        return Generator(name, process, self._log(name))

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        talks: bool = False,
    ) -> Process:
        """Start something. What has a name that was there before goes on with its log.

        :param environment: what is different in its environment.
        """
        log = self._stack.enter_context(self._log(name).open("ab"))
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else log,
            stderr=log,
            env=os.environ | dict(environment or {}),
        )
        self._stack.callback(_end, process)
        return process

    def log_end(self, name: str, lines: int = 5) -> str:
        """The last lines of a log: what to show when something is wrong."""
        written = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"{name}: {line}" for line in written[-lines:])

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


class Generator:
    """A process that measures: it reads a line for each measurement and answers with one."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    def measure(self, operation: str, value_bytes: int, in_flight: int, seconds: float) -> Sample:
        """Have one measurement made.

        :raises PeerFailed: when no answer comes in time.
        """
        question = f"{operation} {value_bytes} {in_flight} {seconds}\n"
        requests, answers = _pipes(self.process)
        try:
            requests.write(question.encode())
            requests.flush()
        except OSError:
            raise PeerFailed(f"{self.name} ended: {_last_line(self._log)}") from None
        if not select.select([answers], [], [], seconds + ANSWER_SECONDS_MAX)[0]:
            raise PeerFailed(f"{self.name} did not answer to {question!r}")
        answer = answers.readline()
        if not answer:
            raise PeerFailed(f"{self.name} ended: {_last_line(self._log)}")
        return Sample(**json.loads(answer))


def cpu_seconds(processes: Iterable[Process]) -> float:
    """The processor time that they have taken since they were started, all threads together.

    :raises PeerFailed: when one has ended.
    """
    ticks = 0
    for process in processes:
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            raise PeerFailed(f"process {process.pid} has ended") from None
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no process is left over."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _pipes(process: Process) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _end(process: Process) -> None:
    """End it, politely at first. A generator also ends when nobody can ask it any more."""
    process.terminate()
    if process.stdin is not None:
        with suppress(OSError):  # a question that a dead one never read
            process.stdin.close()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(log: Path) -> str:
    """What a process said last; of a Go program that panics, why."""
    lines = [line.strip() for line in log.read_text(errors="replace").split("\n")]
    panics = [line for line in lines if line.startswith(("panic:", "fatal error:"))]
    return next(filter(None, [*panics, *reversed(lines)]), "it said nothing")
