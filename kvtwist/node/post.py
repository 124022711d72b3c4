"""Carries Raft messages between the replicas of this node and those of others, and signs of life.

All that the groups of a node have for one peer in one turn goes in one box, heartbeats too: that is
what makes many groups cheap. A box with nothing in it is sent when there was none for a while, so
that a node that is silent is one that is gone, frozen or cut off, whatever its groups are doing.
Groups that have fallen silent rely on it: whoever is told that the node of their leader is silent
has them look for another one.

Only who is known by name and identity may speak for a replica, and only for its own (R11): all else
is passed over. A message may be lost: what cannot be sent now is not kept.

Silence is counted in ticks of this node's own timer, not in seconds: a node that was frozen itself
has counted nothing, and accuses nobody (W7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from twisted.logger import Logger

from kvtwist.core.groups import Group
from kvtwist.core.raft import Message
from kvtwist.core.raft.messages import AppendRequest
from kvtwist.core.topology import Member, Topology
from kvtwist.errors import MalformedRequest, Unavailable
from kvtwist.node.peers import Peers
from kvtwist.wire.commands import RaftMessages
from kvtwist.wire.connection import Arguments, Connection
from kvtwist.wire.limits import MEMBER_BOXES
from kvtwist.wire.link import Link
from kvtwist.wire.raft import read_messages, write_messages

PULSE_TICKS: Final = 2
SILENT_TICKS: Final = 10
"""An election timeout."""
LARGE_BYTES: Final = 64 << 10
"""Appends with more go over the bulk link, so that no heartbeat waits for them."""
ARRIVED_MAX: Final = 4
"""Connections of one member that take large entries: two links, and what is left of those before
them."""
BULK_TICKS: Final = 20
"""So long whatever else there is for that replica goes the same way: an append that overtakes
another one is refused."""

_log = Logger(namespace="kvtwist.node")


@dataclass(slots=True, eq=False)
class _Peer:
    """Another node.

    :ivar heard_tick: when it was last heard.
    :ivar heard_since_tick: since when it has not been silent.
    :ivar is_silent: whether that was said.
    :ivar is_willing: whether it would lead.
    :ivar lost: how often the link to it has failed since it was last up.
    :ivar arrived: the connections that it has dialled, the latest one last.
    """

    member: Member
    control: Link
    bulk: Link
    small: list[tuple[int, Message]] = field(default_factory=list)
    large: list[tuple[int, Message]] = field(default_factory=list)
    sent_tick: int = 0
    heard_tick: int = 0
    heard_since_tick: int = 0
    is_silent: bool = False
    is_willing: bool = False
    lost: int = 0
    arrived: list[Connection] = field(default_factory=list)


class Post:
    """The messages.

    :param name: this node's.

    :ivar is_willing: whether this node would lead.
    :ivar passed_over: messages that came and were for no replica here, or from none that there is.
    """

    def __init__(self, name: str, peers: Peers) -> None:
        self._name = name
        self._peers_of_node = peers
        self._peers: dict[str, _Peer] = {}
        self._groups: Mapping[int, Group] = {}
        self._cluster_id = b""
        self._members: dict[Connection, str] = {}
        self._carriers: set[Connection] = set()
        self._bulk_until: dict[tuple[int, int], int] = {}
        self._tick = 0
        self._deliver: Callable[[int, Message], None] = lambda group, message: None
        self._silent: Callable[[str], None] = lambda name: None
        self.is_willing = True
        self.passed_over = 0

    def begin(
        self,
        topology: Topology,
        groups: Mapping[int, Group],
        deliver: Callable[[int, Message], None],
        silent: Callable[[str], None],
    ) -> None:
        """The cluster is founded: from now on messages go out and come in.

        :param deliver: takes a group's message that has come in.
        :param silent: told the name of a node that is silent.
        """
        self._cluster_id = bytes.fromhex(topology.cluster_id)
        self._groups = groups
        self._deliver, self._silent = deliver, silent
        for member in topology.members:
            if member.name == self._name:
                continue
            control = self._peers_of_node.control_to(member.address)
            peer = _Peer(member, control, self._peers_of_node.bulk(member.address))
            self._peers[member.name] = peer
            control.on_change(partial(self._link_changed, peer))

    # -- out ------------------------------------------------------------------------------------

    def send(self, group: int, message: Message) -> None:
        """Have *message* sent, when this turn's messages are (`flush`)."""
        peer = self._peers.get(self._groups[group].member_of(message.to) or "")
        if peer is None:
            return
        if self._is_bulky(group, message):
            peer.large.append((group, message))
        else:
            peer.small.append((group, message))

    def _is_bulky(self, group: int, message: Message) -> bool:
        if not isinstance(message, AppendRequest):
            return False
        to = (group, message.to)
        if _size_bytes(message) > LARGE_BYTES:
            self._bulk_until[to] = self._tick + BULK_TICKS
            return True
        if self._bulk_until and to in self._bulk_until:
            if self._tick < self._bulk_until[to]:
                return True
            del self._bulk_until[to]
        return False

    def flush(self) -> None:
        """Send what there is."""
        for peer in self._peers.values():
            if peer.small:
                small, peer.small = peer.small, []
                self._send(peer, peer.control, small)
                peer.sent_tick = self._tick
            if peer.large:
                large, peer.large = peer.large, []
                self._send(peer, peer.bulk, large)

    def _send(self, peer: _Peer, link: Link, items: list[tuple[int, Message]]) -> None:
        if link.connection is None:
            return
        for payload in write_messages(items) or (b"",):
            arguments = {
                "cluster": self._cluster_id,
                "messages": payload,
                "willing": self.is_willing,
            }
            link.tell(RaftMessages, arguments)

    # -- in -------------------------------------------------------------------------------------

    def receive(self, connection: Connection, arguments: Arguments) -> Arguments:
        """Take in a box of messages: the responder of `RaftMessages`.

        :raises MalformedRequest: when it cannot be read, or is a stranger's.
        """
        name = self._name_of(connection)
        if arguments["cluster"] != self._cluster_id:
            raise MalformedRequest("these messages are another cluster's")
        self._carriers.add(connection)
        self._heard(self._peers[name], arguments["willing"])
        groups, me = self._groups, self._name
        for id, message in read_messages(arguments["messages"]):
            group = groups.get(id)
            if (
                group is not None
                and group.member_of(message.sender) == name
                and group.member_of(message.to) == me
            ):
                self._deliver(id, message)
            else:
                self.passed_over += 1
        return {}

    def is_carrier(self, connection: Connection) -> bool:
        """Whether messages have come over *connection*."""
        return connection in self._carriers

    # -- who is there ---------------------------------------------------------------------------

    def _name_of(self, connection: Connection) -> str:
        """Which member is at the other end.

        :raises MalformedRequest: when it is none.
        """
        name = self._members.get(connection)
        if name is None:
            raise MalformedRequest("messages between replicas are for members of the cluster")
        return name

    def met(self, connection: Connection) -> None:
        """Somebody has said who it is. Whether it is a member, with the disk that has voted for it,
        is decided by that, and never by what it says later (R11)."""
        greeting = connection.greeting
        peer = self._peers.get(greeting.name) if greeting is not None else None
        if peer is None or greeting is None or peer.member.identity != greeting.identity:
            return
        if connection not in self._members:
            self._members[connection] = peer.member.name
            peer.arrived.append(connection)
            self._entitle(peer)
            connection.when_lost(lambda _: self._forget(peer, connection))

    def has_room(self, connection: Connection) -> bool:
        """Whether *connection* takes whatever a member may have to bring."""
        name = self._members.get(connection)
        return name is not None and connection in self._peers[name].arrived[-ARRIVED_MAX:]

    def _entitle(self, peer: _Peer) -> None:
        """Let a member bring entries of any size that some leader has taken: limits are each node's
        own, but an entry that is in the log must come through. Not over any number of connections:
        it is memory."""
        for connection in peer.arrived:
            connection.take_boxes(MEMBER_BOXES if self.has_room(connection) else None)

    def _forget(self, peer: _Peer, connection: Connection) -> None:
        del self._members[connection]
        self._carriers.discard(connection)
        peer.arrived.remove(connection)
        self._entitle(peer)

    # -- what is not a message ------------------------------------------------------------------

    def check(self, connection: Connection, id: int, sender: int, to: int) -> None:
        """See that who is at the other end may speak for *sender* of a group, and *to* is here.

        :raises MalformedRequest: when that is not so.
        """
        name, group = self._name_of(connection), self._groups.get(id)
        if group is None or (group.member_of(sender), group.member_of(to)) != (name, self._name):
            raise MalformedRequest(f"{name} does not speak for replica {sender} of group {id} here")

    def bulk_to(self, id: int, replica: int) -> Link:
        """The link to the node that has a replica of a group, for what is large.

        :raises Unavailable: when that is nobody else's.
        """
        group = self._groups.get(id)
        peer = self._peers.get((group.member_of(replica) if group else None) or "")
        if peer is None:
            raise Unavailable(f"no other member has replica {replica} of group {id}")
        return peer.bulk

    # -- signs of life --------------------------------------------------------------------------

    def tick(self) -> None:
        """Time passes: give signs of life, and look for them."""
        self._tick += 1
        for peer in self._peers.values():
            if self._tick - peer.sent_tick >= PULSE_TICKS:
                peer.sent_tick = self._tick
                self._send(peer, peer.control, [])
            if self._tick - peer.heard_tick >= SILENT_TICKS:
                self._is_silent(peer)

    def heard_for_ticks(self, name: str) -> int:
        """For how long *name* has been heard without a pause; 0: not now, or it would not lead."""
        peer = self._peers.get(name)
        if peer is None or peer.is_silent or not peer.is_willing:
            return 0
        return self._tick - peer.heard_since_tick

    def is_heard(self, name: str) -> bool:
        """Whether *name* is not silent."""
        peer = self._peers.get(name)
        return peer is not None and not peer.is_silent

    def _heard(self, peer: _Peer, is_willing: bool | None) -> None:
        peer.heard_tick = self._tick
        if is_willing is not None:
            peer.is_willing = is_willing
        if peer.is_silent:
            peer.is_silent = False
            peer.heard_since_tick = self._tick

    def _is_silent(self, peer: _Peer) -> None:
        if not peer.is_silent:
            peer.is_silent = True
            self._silent(peer.member.name)

    def _link_changed(self, peer: _Peer, link: Link) -> None:
        """A connection that is lost and cannot be made again at once: nobody is there. To wait for
        the silence would only cost time."""
        if link.connection is not None:
            peer.lost = 0
            return
        peer.lost += 1
        if peer.lost == 2:
            self._is_silent(peer)


def _size_bytes(append: AppendRequest) -> int:
    return sum(len(entry.data) for entry in append.entries)
