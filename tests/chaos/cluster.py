"""The nodes' processes: started, killed, frozen, stopped; and watched: none may end unasked."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from pathlib import Path

from tests.chaos.network import Network
from tests.processes.nodes import TWISTD, Program, free_ports

_OWN_PORT = 8000
_IN_SERVICE = re.compile(r" (is back in|founded|rejoined, with empty memory,) cluster ")
_TROUBLE = re.compile(r"Traceback|Unhandled|#critical")
_RAISED = re.compile(r"^\s*[\w.]+(Error|Exception|Full|Failed|Damaged)\b.*$", re.MULTILINE)


class Cluster:
    """Nodes in a temporary directory, numbered from 1 on.

    :param network: where each has a host of its own; ``None``: all are on this one.
    :param options: for every node.
    :ivar peers: where each node is reached.
    :ivar directory: with their data, and what each life of each of them has printed.
    """

    def __init__(self, nodes: int, network: Network | None, options: tuple[str, ...]) -> None:
        self.numbers = range(1, nodes + 1)
        self.directory = Path(tempfile.mkdtemp(prefix="kvtwist-chaos-"))
        self._network = network
        self._options = options
        ports = [] if network is not None else free_ports(nodes)
        self.peers = [
            f"{network.address(number)}:{_OWN_PORT}"
            if network
            else f"127.0.0.1:{ports[number - 1]}"
            for number in self.numbers
        ]
        self._lives: dict[int, list[Program]] = {number: [] for number in self.numbers}
        self._running: set[int] = set()
        self._frozen: set[int] = set()
        self.ended_unasked: list[str] = []

    def found(self) -> None:
        """Start all and wait until they are a cluster."""
        for number in self.numbers:
            self.start(number)
        for number in self.numbers:
            self._lives[number][-1].wait_for("founded cluster")

    def start(self, number: int) -> None:
        """Start a node that does not run."""
        assert number not in self._running
        lives = self._lives[number]
        own = (f"--id=node-{number}", f"--addr={self.peers[number - 1]}")
        options = (*own, *self._options, f"--peers={','.join(self.peers)}")
        prefix = self._network.prefix(number) if self._network else ()
        command = (*prefix, *TWISTD, "-n", "kvnode", *options)
        lives.append(Program(command, self.directory, f"node-{number}.life-{len(lives) + 1}"))
        self._running.add(number)

    def kill(self, number: int) -> None:
        """``kill -9``, also of one that is frozen."""
        self._lives[number][-1].kill()
        self._running.discard(number)
        self._frozen.discard(number)

    def freeze(self, number: int) -> None:
        """SIGSTOP."""
        self._lives[number][-1].signal(signal.SIGSTOP)
        self._frozen.add(number)

    def thaw(self, number: int) -> None:
        """SIGCONT."""
        self._lives[number][-1].signal(signal.SIGCONT)
        self._frozen.discard(number)

    def stop(self, number: int) -> None:
        """SIGTERM; `has_stopped` says when it is done."""
        self._running.discard(number)
        self._lives[number][-1].signal(signal.SIGTERM)

    def has_stopped(self, number: int) -> bool:
        """Whether a node that was told to stop has ended."""
        return self._lives[number][-1].status is not None

    def is_in_service(self, number: int) -> bool:
        """Whether the present life of a node has said that it is part of the cluster."""
        said = self._lives[number][-1].output
        return number in self._running and _IN_SERVICE.search(said) is not None

    def is_up(self, number: int) -> bool:
        """Whether it runs, and is not frozen."""
        return number in self._running and number not in self._frozen

    def look(self) -> None:
        """Note whoever has ended without being told to."""
        for number in sorted(self._running):
            status = self._lives[number][-1].status
            if status is not None:
                self._running.discard(number)
                life = len(self._lives[number])
                self.ended_unasked.append(f"node-{number}, life {life}, ended with {status}")

    def heal(self) -> None:
        """Thaw who is frozen; start who does not run."""
        for number in self.numbers:
            if number in self._frozen:
                self.thaw(number)
            elif number not in self._running:
                self.start(number)

    def stop_all(self, seconds: float) -> list[str]:
        """Tell all to stop, and wait; what was wrong about how they ended."""
        wrong = []
        for number in sorted(self._running):
            self.stop(number)
        for number in self.numbers:
            program = self._lives[number][-1]
            if not program.ends_within(seconds):
                wrong.append(f"node-{number} did not stop within {seconds:g} s of SIGTERM")
            elif "has stopped" not in program.output:
                wrong.append(f"node-{number} ended with {program.status}, and not in order")
        return wrong

    def troubles(self) -> list[str]:
        """What nodes have printed and should not: of each life how often, and the first."""
        found = []
        for number, lives in self._lives.items():
            for life, program in enumerate(lives, 1):
                said = program.output
                first = _TROUBLE.search(said)
                if first is not None:
                    times = len(_TROUBLE.findall(said))
                    raised = _RAISED.search(said, first.start())
                    what = " ".join((raised or first).group().split())
                    found.append(f"node-{number}, life {life}, {times} times: {what[:300]}")
        return found

    def snapshots(self) -> int:
        """How many snapshots replicas have taken, by what the nodes have printed."""
        return sum(
            program.output.count(" has now the snapshot at ")
            for lives in self._lives.values()
            for program in lives
        )

    def data_directories(self) -> list[Path]:
        """Of the nodes, in their order."""
        return sorted(self.directory.glob("node-*.kvtwist"))

    def keep(self, evidence: Path) -> None:
        """Copy everything there is to *evidence*."""
        shutil.copytree(self.directory, evidence, dirs_exist_ok=True)

    def close(self) -> None:
        """End everything, and remove the directory."""
        for lives in self._lives.values():
            for program in lives:
                program.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
