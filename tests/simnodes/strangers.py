"""Somebody who is no member, and says what a replica would say (R11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols import amp

from kvtwist.core.address import Address
from kvtwist.core.raft import Entry, EntryKind, Message, Raft, Role
from kvtwist.core.raft.messages import AppendRequest, AppendResponse, VoteResponse
from kvtwist.node.replica import Replica
from kvtwist.wire.commands import RaftMessages
from kvtwist.wire.raft import write_messages
from tests.simnodes.network import Network


class Stranger:
    """A host from which a node is told something, once."""

    def __init__(self, network: Network, ip: str, node: Address) -> None:
        self._host = network.boot(ip)
        self._node = node

    def say(self, cluster_id: bytes, messages: Iterable[tuple[int, Message]]) -> None:
        """Say *messages*, each with its group."""
        payloads = write_messages(messages)
        endpoint = TCP4ClientEndpoint(self._host, self._node.host, self._node.port, 1.0)
        dialled: Deferred[Any] = connectProtocol(endpoint, amp.AMP())

        def told(protocol: amp.AMP) -> None:
            for payload in payloads:
                protocol.callRemote(
                    RaftMessages, cluster=cluster_id, messages=payload, willing=True
                )

        dialled.addCallbacks(told, lambda _: None)


def forged(replicas: Iterable[Replica]) -> Iterator[tuple[int, Message]]:
    """What would do most harm, if these replicas believed it."""
    for replica in replicas:
        for message in _forged(replica.raft):
            yield replica.group, message


def _forged(raft: Raft) -> Iterator[Message]:
    others = [each for each in raft.configuration.voters if each != raft.replica]
    last, term = raft.last_index, raft.term
    if raft.role is Role.LEADER:  # all have what it has
        yield from (AppendResponse(each, raft.replica, term, last) for each in others)
    elif raft.role is Role.FOLLOWER and raft.leader in others:  # another entry, and committed
        entry = Entry(last + 1, term, EntryKind.NOOP)
        before = raft.log.term_at(last) or 0
        yield AppendRequest(
            raft.leader, raft.replica, term, last, before, (entry,), commit=last + 1
        )
    elif raft.role is Role.CANDIDATE:  # it is elected
        yield from (VoteResponse(each, raft.replica, term, True) for each in others)
