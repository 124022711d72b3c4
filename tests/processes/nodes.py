"""Real processes on loopback ports, for the few tests that need them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 20.0
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
KVCLI = (sys.executable, "-c", "from kvtwist.cli.main import main; main()")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_ports_in_a_row(count: int) -> int:
    """The first of *count* ports that nothing listens on just now."""
    while True:
        (first,) = free_ports(1)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


class Program:
    """One running process; its output goes to a file, which can be read at any time.

    It ends with us at the latest, even when we are killed.
    """

    def __init__(self, command: tuple[str, ...], directory: Path, name: str) -> None:
        self._output = directory / f"{name}.out"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                process_group=0,
                preexec_fn=_prepare,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """How it ended, negative for a signal; ``None``: it runs."""
        return self._process.poll()

    def wait_for(self, pattern: str) -> str:
        """Wait until it has printed *pattern*; the line."""
        end = time.monotonic() + SECONDS_MAX
        while (found := re.search(f".*{pattern}.*", self.output)) is None:
            ended = self._process.poll() is not None
            if ended or time.monotonic() > end:
                state = f"ended with {self._process.returncode}" if ended else "still runs"
                raise AssertionError(f"no {pattern!r}; the process {state}:\n{self.output}")
            time.sleep(0.02)
        return found.group()

    def wait_for_file(self, path: Path) -> None:
        """Wait until it has made *path*."""
        end = time.monotonic() + SECONDS_MAX
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"no {path}:\n{self.output}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        return self._process.wait(SECONDS_MAX)

    def ends_within(self, seconds: float) -> bool:
        """Whether it does; waits for that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Processes:
    """A directory, and nodes started in it as in the README's quick start."""

    def __init__(self, nodes: int = 3) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kvtwist-test-")
        self.directory = Path(self._temporary.name)
        self.ports = free_ports(nodes)
        self.peers = ",".join(f":{port}" for port in self.ports)
        self.nodes: dict[int, Program] = {}
        self.options: tuple[str, ...] = ()
        self._programs: list[Program] = []

    def run(self, command: tuple[str, ...], name: str) -> Program:
        """Start any program in the directory."""
        program = Program(command, self.directory, name)
        self._programs.append(program)
        return program

    def start(self, number: int) -> Program:
        """Start node-*number*, word for word as the README does."""
        own = (f"--id=node-{number}", f"--addr=:{self.ports[number - 1]}")
        options = (*own, *self.options)
        command = (*TWISTD, "-n", "kvnode", *options, f"--peers={self.peers}")
        self.nodes[number] = self.run(command, f"node-{number}")
        return self.nodes[number]

    def found(self) -> None:
        """Start all nodes and wait until they are a cluster."""
        for number in range(1, len(self.ports) + 1):
            self.start(number)
        for node in self.nodes.values():
            node.wait_for("founded cluster")

    def kvcli(
        self, *arguments: str, peers: str | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``kvcli`` to its end."""
        return subprocess.run(
            (*KVCLI, f"--peers={peers or self.peers}", *arguments),
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            timeout=SECONDS_MAX,
            env=_environment(),
            check=False,
        )

    def close(self) -> None:
        """End everything and remove the directory."""
        for program in self._programs:
            program.kill()
        self._temporary.cleanup()


_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
"""Linux has it."""
_PR_SET_PDEATHSIG = 1


def _prepare() -> None:
    """In the new process. It hears SIGINT as at a terminal: what a shell starts in the background
    inherits that it is ignored. And it is killed when we end, however that may be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """The environment of a user's shell, with kvtwist importable wherever it was installed from."""
    outside = {name: os.environ[name] for name in os.environ if not name.startswith("KVTWIST")}
    return outside | {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
