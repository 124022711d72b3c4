"""A machine with a node on it, over all the node's lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from twisted.internet.defer import Deferred

from kvtwist.core.address import Address
from kvtwist.core.topology import Settings
from kvtwist.errors import DiskFull, KvtwistError, StorageError, StoreFailed
from kvtwist.service import Node, NodeConfig
from tests.simnodes.disk import Disk
from tests.simnodes.network import Host, Network
from tests.simnodes.plan import Plan
from tests.simnodes.trace import Trace

PORT = 8001
RESTART_SECONDS_MAX = 1.5
"""How long it takes, at most, until somebody starts a node again that has ended by itself."""


class Machine:
    """A machine.

    :param wrong: called with the name of what does not hold, and how.
    :param gone: called with the machine's name when its node runs no more.
    :ivar node: that runs, or ran last.
    :ivar is_up: whether it runs, frozen or not.
    :ivar is_stopping: whether it is being stopped in order.
    """

    host: Host
    node: Node

    def __init__(
        self,
        number: int,
        plan: Plan,
        network: Network,
        trace: Trace,
        founders: Sequence[Address],
        clock_rate: float,
        wrong: Callable[[str, str], None],
        gone: Callable[[str], None],
    ) -> None:
        self.name = f"node-{number}"
        self.address = founders[number - 1]
        self.ip = self.address.host
        self.random = Random(f"{self.name} {plan.seed}")
        self.disk = Disk(self.random, plan.disks)
        self.is_up = False
        self.is_stopping = False
        self.life = 0
        self._plan = plan
        self._network = network
        self._trace = trace
        self._founders = tuple(founders)
        self._clock_rate = clock_rate
        self._wrong = wrong
        self._gone = gone

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self.is_up and self.host.is_frozen

    def start(self) -> None:
        """Boot it, and start its node."""
        if self.is_up:
            return
        self.life += 1
        self.is_up, self.is_stopping = True, False
        self._trace.add("start", self.name, self.life)
        self.host = self._network.boot(self.ip, self._clock_rate)
        plan, life = self._plan, self.life
        self.node = Node(
            self.host,
            NodeConfig(
                name=self.name,
                listen=self.address,
                founders=self._founders,
                settings=Settings(partitions=plan.partitions, replicas=plan.replicas, durable=True),
            ),
            hopeless=lambda error: self._gave_up(life, error),
            identity=f"{self.random.getrandbits(128):032x}",
            chance=self.random.random,
            wall_seconds=lambda: 1e9 + self._network.clock.now,
            open_storage=self.disk.open,
        )
        try:
            self.node.privilegedStartService()
            self.node.startService()
        except StorageError as error:
            self._gave_up(life, error, 0.0)
            self._end_of(life)

    def _gave_up(self, life: int, error: KvtwistError, seconds: float = 0.2) -> None:
        """The node has ended by itself; the process goes on a little, and is started again."""
        if life != self.life or not self.is_up:
            return
        self._trace.add("gave up", self.name, error)
        is_expected = isinstance(error, StoreFailed | DiskFull) and self.disk.trouble is not None
        if not is_expected:
            self._wrong("nodes_do_not_give_up", f"{self.name}: {type(error).__name__}: {error}")
        clock = self._network.clock
        clock.after(seconds * self.random.random(), self._end_of, life)

    def _end_of(self, life: int) -> None:
        if life == self.life and self.is_up:
            self.crash("killed")
            seconds = RESTART_SECONDS_MAX * self.random.random()
            self._network.clock.after(seconds, self._again, life)

    def _again(self, life: int) -> None:
        if life == self.life and not self.is_up:
            if isinstance(self.disk.trouble, StoreFailed):
                self.disk.trouble = None
            self.start()

    def crash(self, how: str) -> None:
        """It ends at once; see `tests.simnodes.network.Host.die`."""
        if self.is_up:
            self.is_up = False
            self.host.die(how)
            self.disk.crash()
            self._gone(self.name)
            self._trace.add("down", self.name, how)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Stop the node in order, and then the machine."""
        if not self.is_up or self.is_stopping or self.host.is_frozen:
            stopped()
            return
        self.is_stopping = True
        life = self.life
        self._trace.add("stop", self.name)

        def ended(_: object) -> None:
            if life == self.life and self.is_up:
                self.crash("killed")
            stopped()

        ending: Deferred[None] = self.node.stopService()
        ending.addBoth(ended)
