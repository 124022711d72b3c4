"""Nodes of kvtwist, each a process, which can be killed and started again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from _processes import Process, Processes, free_ports

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class Nodes:
    """The nodes of one cluster on loopback, ``node-1`` and so on.

    What they keep is in the directory of *processes*.

    :param options: of every node, as ``twistd kvnode`` has them.
    :ivar ports: where they listen, in their order.
    :ivar running: their processes.
    """

    def __init__(self, processes: Processes, count: int, options: Sequence[str]) -> None:
        self._processes = processes
        self.ports = free_ports(count)
        self._options = (f"--peers={','.join(self.addresses)}", *options)
        self.running: list[Process] = []
        for at, port in enumerate(self.ports):
            self.running.append(processes.serve(self.name(at), self._command(at), port))

    @property
    def addresses(self) -> list[str]:
        """Where they listen, as ``--peers`` has it."""
        return [f":{port}" for port in self.ports]

    def name(self, at: int) -> str:
        """The name of the node at this place."""
        return f"node-{at + 1}"

    def start_again(self, at: int) -> None:
        """Start one whose process has ended; it need not listen yet."""
        self.running[at] = self._processes.start(self.name(at), self._command(at))

    def log_ends(self) -> str:
        """The last lines of their logs."""
        return "\n".join(map(self._processes.log_end, map(self.name, range(len(self.ports)))))

    def _command(self, at: int) -> tuple[str, ...]:
        mine = (f"--id={self.name(at)}", f"--addr=:{self.ports[at]}")
        return (*TWISTD, "-n", f"--pidfile={self.name(at)}.pid", "kvnode", *mine, *self._options)
