"""A client that speaks AMP as Twisted has it, to one node at a time, and never repeats anything."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.address import Address
from kvtwist.errors import KvtwistError
from kvtwist.wire import commands
from kvtwist.wire.failures import read_failure
from tests.linearizability.history import Kind
from tests.simnodes.history import GRACE_SECONDS, History
from tests.simnodes.network import Network
from tests.simnodes.plan import Plan

_COMMANDS: dict[Kind, type[amp.Command]] = {
    Kind.GET: commands.Get,
    Kind.PUT: commands.Put,
    Kind.INCREMENT: commands.Increment,
}
_KINDS = (Kind.GET, Kind.PUT, Kind.INCREMENT, Kind.INCREMENT)


class StockProcess:
    """A process that speaks stock AMP.

    :param nodes: the addresses of nodes, of which it chooses one whenever it has none.
    """

    def __init__(
        self,
        name: str,
        ip: str,
        plan: Plan,
        network: Network,
        history: History,
        keys: Sequence[bytes],
        counters: Sequence[bytes],
        nodes: Sequence[Address],
        timeout_seconds: float = 2.0,
    ) -> None:
        self.name = name
        self.ip = ip
        self.is_up = False
        self._plan = plan
        self._network = network
        self._history = history
        self._keys = keys
        self._counters = counters
        self._nodes = nodes
        self._timeout_seconds = timeout_seconds
        self._random = Random(f"{name} {plan.seed}")
        self._life = 0
        self._is_resting = False
        self._protocol: amp.AMP | None = None
        self._ticket: int | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._life += 1
        self.is_up = True
        self.host = self._network.boot(self.ip)
        self._protocol = None
        self._think()

    def crash(self) -> None:
        """It is killed."""
        self.is_up = False
        self.host.die(self._random.choice(("killed", "reset", "power")))
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._history.is_open(ticket):
            self._history.unknown(ticket, "its client was killed")

    def rest(self) -> None:
        """Begin nothing new."""
        self._is_resting = True

    def _think(self) -> None:
        self.host.callLater(self._plan.think_seconds * 2 * self._random.random(), self._next)

    def _next(self) -> None:
        if self._is_resting:
            return
        if self._protocol is None or self._random.random() < 0.05:
            self._dial()
        else:
            self._ask(self._protocol)

    def _dial(self) -> None:
        self._hang_up()
        node = self._random.choice(self._nodes)
        endpoint = TCP4ClientEndpoint(self.host, node.host, node.port, 1.0)
        dialled: Deferred[Any] = connectProtocol(endpoint, amp.AMP())
        dialled.addCallbacks(self._dialled, lambda _: None)
        dialled.addCallback(lambda _: self._think())

    def _dialled(self, protocol: amp.AMP) -> None:
        self._protocol = protocol

    def _hang_up(self) -> None:
        protocol, self._protocol = self._protocol, None
        transport: Any = protocol.transport if protocol is not None else None
        if transport is not None:
            transport.abortConnection()

    def _ask(self, protocol: amp.AMP) -> None:
        kind = self._random.choice(_KINDS)
        key = self._random.choice(self._counters if kind is Kind.INCREMENT else self._keys)
        asked: dict[str, Any] = {}
        if kind is Kind.PUT:
            asked["value"] = self._history.new_value(self._random, 20)
        elif kind is Kind.INCREMENT:
            asked["amount"] = self._random.randrange(1, 10)
        deadline = self._network.clock.now + self._timeout_seconds + GRACE_SECONDS
        lane = f"{self.name}.{self._life}"
        self._ticket = ticket = self._history.begin(lane, kind, key, deadline, **asked)
        timeout_ms = int(self._timeout_seconds * 1000)
        said = {"delta" if name == "amount" else name: value for name, value in asked.items()}
        answer: Deferred[Any] = protocol.callRemote(
            _COMMANDS[kind], key=key, timeout_ms=timeout_ms, **said
        )
        waiting = self.host.callLater(self._timeout_seconds + GRACE_SECONDS / 2, answer.cancel)
        answer.addBoth(self._ended, waiting)
        answer.addCallbacks(
            self._answered,
            self._failed,
            callbackArgs=(kind, ticket, key),
            errbackArgs=(ticket, key),
        )
        answer.addCallback(lambda _: self._think())
        answer.addErrback(self._history.is_bug)

    def _ended(self, result: Any, waiting: Any) -> Any:
        self._ticket = None
        if waiting.active():
            waiting.cancel()
        return result

    def _answered(self, answer: dict[str, Any], kind: Kind, ticket: int, key: bytes) -> None:
        if kind is Kind.PUT:
            self._history.answered(ticket, kind, key, version=answer["version"])
        elif kind is Kind.INCREMENT:
            total = b"%d" % answer["total"]
            self._history.answered(ticket, kind, key, version=answer["version"], value=total)
        else:
            value, version = answer.get("value"), answer["version"]
            self._history.answered(ticket, kind, key, version=version, value=value)

    def _failed(self, failure: Failure, ticket: int, key: bytes) -> None:
        """An error of the command's is said with its code; all else leaves the outcome open."""
        error = failure.value
        if isinstance(error, KvtwistError):
            error = read_failure(type(error).code.encode(), str(error).encode())
            self._history.failed(ticket, key, error)
            return
        self._hang_up()
        self._history.unknown(ticket, repr(error)[:100])
