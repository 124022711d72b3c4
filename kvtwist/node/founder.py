"""Drives the founding: asks the other founders for their views until there is a cluster.

The rule itself is `kvtwist.core.founding`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist.core.address import Address
from kvtwist.errors import ConfigurationError, KvtwistError
from kvtwist.node.cluster import Cluster
from kvtwist.node.peers import Peers
from kvtwist.wire.commands import Found
from kvtwist.wire.connection import Arguments
from kvtwist.wire.link import Link
from kvtwist.wire.values import read_view

ASK_INTERVAL_SECONDS = 0.1
ANSWER_TIMEOUT_SECONDS = 1.0
SAY_INTERVAL_SECONDS = 5.0

_log = Logger(namespace="kvtwist.node")


Hopeless: TypeAlias = Callable[[KvtwistError], None]
"""What to call, with the reason, when this node can never come in, or cannot go on."""


class Founder:
    """Asks, every tenth of a second and at each new connection, until the cluster is founded.

    :param hopeless: called with the reason when this node can never come in.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        peers: Peers,
        hopeless: Hopeless,
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._peers = peers
        self._hopeless = hopeless
        self._said: tuple[str, ...] = ()
        self._asking: set[Address] = set()
        self._loops = (self._loop(self._ask_all), self._loop(self._say))
        for link in peers.control():
            link.on_change(self._changed)

    def start(self) -> None:
        """Begin, unless there is nobody to ask."""
        if self._cluster.topology is None:
            for loop, interval_seconds in zip(
                self._loops, (ASK_INTERVAL_SECONDS, SAY_INTERVAL_SECONDS), strict=True
            ):
                loop.start(interval_seconds, now=False)

    def stop(self) -> None:
        """Ask no more."""
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _loop(self, call: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def _ask_all(self) -> None:
        for link in self._peers.control():
            self._ask(link)

    def _changed(self, link: Link) -> None:
        if self._cluster.topology is not None:
            return
        if link.refused is not None and link.refused.reason == "name":
            self._give_up(ConfigurationError(str(link.refused)))
        else:
            self._ask(link)

    def _ask(self, link: Link) -> None:
        if link.connection is None:
            self._cluster.silent(link.address, link.trouble)
        elif link.address not in self._asking:
            self._asking.add(link.address)
            answer = link.call(Found, {}, ANSWER_TIMEOUT_SECONDS)
            answer.addBoth(self._asked, link.address)
            answer.addCallbacks(
                self._answered, self._unanswered, (link.address,), {}, (link.address,)
            )
            answer.addErrback(lambda failure: _log.failure("a bug in the founding", failure))

    def _asked(self, result: Arguments | Failure, address: Address) -> Arguments | Failure:
        self._asking.discard(address)
        return result

    def _answered(self, answer: Arguments, address: Address) -> None:
        try:
            view = read_view(answer)
        except KvtwistError as error:
            self._cluster.silent(address, f"its answer makes no sense: {error}")
            return
        try:
            self._cluster.heard(address, view)
        except KvtwistError as error:
            self._give_up(error)
        if self._cluster.topology is not None:
            self.stop()

    def _unanswered(self, failure: Failure, address: Address) -> None:
        failure.trap(KvtwistError)
        self._cluster.silent(address, str(failure.value))

    def _give_up(self, error: KvtwistError) -> None:
        self.stop()
        self._hopeless(error)

    def _say(self) -> None:
        """Tell the log whom this node waits for, whenever that has changed."""
        missing = self._cluster.waiting_for()
        if missing and missing != self._said:
            self._said = missing
            _log.info("waiting for {missing}", missing=", ".join(missing))
