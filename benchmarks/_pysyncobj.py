"""Three nodes of PySyncObj in one process, driven by hand: see `benchmarks/README.md`.

They talk over a transport of our own, which PySyncObj takes as an argument: a queue, as fast
as ours, without sockets and without pickling. They tick only when told to. Commands are of the kind
that does nothing when it is applied, so that what is measured is the consensus.
"""

from __future__ import annotations

import importlib
from collections import deque
from time import monotonic
from typing import Any

INSTALL = "PySyncObj is not installed: pip install pysyncobj"
NEVER = 10**9
ELECTION_SECONDS_MAX = 10.0


class _Nothing:
    """In place of the poller: there are no sockets, so that asking the kernel is a waste."""

    def poll(self, _: float) -> None:
        """There is nothing."""


class _Wire:
    """The part of `pysyncobj.transport.Transport` that three fixed nodes use."""

    ready = True

    def __init__(self, node: Any, queue: deque[tuple[Any, Any, Any]]) -> None:
        self.node = node
        self.queue = queue
        self.callbacks: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Keeps what is set by ``setOnMessageReceivedCallback`` and the like."""
        if not name.startswith("setOn"):
            raise AttributeError(name)
        return lambda *given: self.callbacks.__setitem__(name, given[-1])

    def send(self, node: Any, message: Any) -> bool:
        """Queue it."""
        self.queue.append((node, self.node, message))
        return True


class PySyncObj:
    """The three nodes.

    :param batch_seconds: 0: each command is sent at once; else all that have come since it was last
        done, so often (PySyncObj's ``appendEntriesUseBatch``, its default, and its period).
    :raises ImportError: when it is not installed.
    """

    def __init__(self, batch_seconds: float) -> None:
        module = importlib.import_module("pysyncobj")
        node_class: Any = importlib.import_module("pysyncobj.node").Node
        core: Any = importlib.import_module("pysyncobj.syncobj")
        core.PIPE_NOTIFIER_ENABLED = False  # it wakes a thread that sleeps; nobody does here
        self._noop: int = core._COMMAND_TYPE.NO_OP
        self._queue: deque[tuple[Any, Any, Any]] = deque()
        nodes = [node_class(f"node-{number}") for number in (1, 2, 3)]
        self._wires = {node: _Wire(node, self._queue) for node in nodes}
        settings: dict[str, Any] = {
            "autoTick": False,
            "appendEntriesUseBatch": batch_seconds > 0,
            "logCompactionMinEntries": NEVER,
            "logCompactionMinTime": NEVER,
        }
        if batch_seconds:
            settings["appendEntriesPeriod"] = batch_seconds
        self._members: list[Any] = []
        confs = []
        for node, wire in self._wires.items():
            others = [each for each in nodes if each != node]
            conf = module.SyncObjConf(**settings)
            member = module.SyncObj(node, others, conf, transport=wire)
            confs.append(conf)
            member._poller = _Nothing()
            self._members.append(member)
        for wire in self._wires.values():
            for node in nodes:
                if node != wire.node:
                    wire.callbacks["setOnNodeConnectedCallback"](node)
        self._leader = self._elect()
        for conf in confs:
            # So that they elect nobody else while others are measured.
            conf.raftMinTimeout, conf.raftMaxTimeout = NEVER, 2 * NEVER
        self.commit([b"\0"] * 1_000)

    def _elect(self) -> Any:
        until = monotonic() + ELECTION_SECONDS_MAX
        while monotonic() < until:
            self._turn()
            for member in self._members:
                if member._isLeader() and member.isReady():
                    return member
        raise RuntimeError("PySyncObj elects nobody")

    def commit(self, payloads: list[bytes]) -> None:
        """Have *payloads* committed, and applied by the leader."""
        outcomes: list[int] = []
        for payload in payloads:
            self._leader._applyCommand(payload, lambda _, error: outcomes.append(error), self._noop)
        while len(outcomes) < len(payloads):
            self._turn()
        if any(outcomes):
            raise RuntimeError(f"PySyncObj has failed: {outcomes}")

    def _turn(self) -> None:
        """Everybody ticks, then everything is delivered, the answers too."""
        for member in self._members:
            member.doTick()
        queue = self._queue
        while queue:
            to, sender, message = queue.popleft()
            self._wires[to].callbacks["setOnMessageReceivedCallback"](sender, message)
