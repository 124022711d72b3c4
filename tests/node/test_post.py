"""Messages between nodes: whose are taken, how they travel, and who is thought to be silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.groups import group_of, groups_of
from kvtwist.core.raft import Entry, EntryKind, Message
from kvtwist.core.raft.messages import AppendRequest, Heartbeat
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import MalformedRequest
from kvtwist.node.post import (
    ARRIVED_MAX,
    BULK_TICKS,
    LARGE_BYTES,
    PULSE_TICKS,
    SILENT_TICKS,
    Post,
)
from kvtwist.wire.connection import Connection
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import MEMBER_BOXES
from kvtwist.wire.raft import read_messages, write_messages

NAMES = ("node-1", "node-2", "node-3", "node-4")
MEMBERS = [
    Member(name, f"{at:032x}", Address("10.0.0.1", 8000 + at)) for at, name in enumerate(NAMES)
]
TOPOLOGY = Topology("ab" * 16, 1, MEMBERS, Settings(partitions=16, replicas=3, durable=True))
GROUPS = groups_of(TOPOLOGY)
CLUSTER = bytes.fromhex(TOPOLOGY.cluster_id)


class FakeLink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.connection: object | None = object()
        self.told: list[dict[str, Any]] = []
        self.changed: Callable[[Any], None] = lambda link: None

    def tell(self, command: object, arguments: dict[str, Any]) -> bool:
        self.told.append(arguments)
        return True

    def on_change(self, notify: Callable[[Any], None]) -> None:
        self.changed = notify

    @property
    def items(self) -> list[tuple[int, Message]]:
        return [item for each in self.told for item in read_messages(each["messages"])]


class FakePeers:
    def __init__(self) -> None:
        self.controls = {each.address: FakeLink() for each in MEMBERS}
        self.bulks = {each.address: FakeLink() for each in MEMBERS}

    def control_to(self, address: Address) -> FakeLink:
        return self.controls[address]

    def bulk(self, address: Address) -> FakeLink:
        return self.bulks[address]


class FakeConnection:
    def __init__(self, name: str, identity: str, greets: bool = True) -> None:
        self.greeting = Greeting(name=name, identity=identity) if greets else None
        self.boxes: object = None
        self.lost: Callable[[object], None] = lambda _: None

    def take_boxes(self, limits: object) -> None:
        self.boxes = limits

    def when_lost(self, notify: Callable[[object], None]) -> None:
        self.lost = notify


class PostCase(SynchronousTestCase):
    """The post of node-1."""

    def setUp(self) -> None:
        self.peers = FakePeers()
        self.post = Post("node-1", cast(Any, self.peers))
        self.came: list[tuple[int, Message]] = []
        self.silent: list[str] = []
        self.post.begin(
            TOPOLOGY,
            GROUPS,
            lambda group, message: self.came.append((group, message)),
            self.silent.append,
        )
        mine = [each for each in GROUPS.values() if each.replica_of("node-1") and each.id > 1]
        self.group = next(each for each in mine if each.replica_of("node-2"))
        self.me, self.other = self.at("node-1"), self.at("node-2")

    def at(self, name: str) -> int:
        replica = self.group.replica_of(name)
        assert replica is not None
        return replica

    def control(self, name: str = "node-2") -> FakeLink:
        return self.peers.controls[TOPOLOGY.member(name).address]

    def bulk(self, name: str = "node-2") -> FakeLink:
        return self.peers.bulks[TOPOLOGY.member(name).address]

    def met(self, name: str = "node-2", identity: str | None = None, **more: Any) -> Connection:
        known = identity or TOPOLOGY.member(name).identity
        connection = cast(Connection, FakeConnection(name, known, **more))
        self.post.met(connection)
        return connection

    def receive(
        self, connection: Connection, *items: tuple[int, Message], cluster: bytes = CLUSTER
    ) -> None:
        (payload,) = write_messages(items) or (b"",)
        self.post.receive(connection, {"cluster": cluster, "messages": payload, "willing": True})

    def heartbeat(self, sender: int | None = None, to: int | None = None) -> Heartbeat:
        return Heartbeat(sender or self.other, to or self.me, 1, 0)


class SenderTests(PostCase):
    """R11: a vote or an acknowledgement counts only from the disk that gave it."""

    def test_a_members_own(self) -> None:
        """Else nobody is ever elected."""
        self.receive(self.met(), (self.group.id, self.heartbeat()))
        self.assertEqual(self.came, [(self.group.id, self.heartbeat())])
        self.assertEqual(self.post.passed_over, 0)

    def test_strangers(self) -> None:
        """A client, an unknown name, a known one on another disk, and who has said nothing: what
        they say is refused whole."""
        for connection in (
            self.met("", "0" * 32),
            self.met("node-9", "0" * 32),
            self.met("node-2", "f" * 32),
            self.met("node-2", greets=False),
            self.met("node-1"),
        ):
            with self.assertRaises(MalformedRequest):
                self.receive(connection, (self.group.id, self.heartbeat()))
        self.assertEqual(self.came, [])

    def test_what_is_said_later_changes_nothing(self) -> None:
        """Who is who is decided once; else one connection could speak for all replicas."""
        connection = self.met()
        third = next(name for name in self.group.members if name not in ("node-1", "node-2"))
        connection.greeting = Greeting(name=third, identity=TOPOLOGY.member(third).identity)
        self.post.met(connection)
        self.receive(connection, (self.group.id, self.heartbeat(self.at(third))))
        self.assertEqual(self.came, [])
        self.receive(connection, (self.group.id, self.heartbeat()))
        self.assertEqual(len(self.came), 1)

    def test_for_another(self) -> None:
        """One that is another replica's, or for another one, or of another group, is passed over,
        and what stands beside it in the box is not."""
        third = next(each for each in (1, 2, 3) if each not in (self.me, self.other))
        apart = next(
            each for each in GROUPS.values() if each.id > 1 and not each.replica_of("node-2")
        )
        self.receive(
            self.met(),
            (self.group.id, self.heartbeat(sender=third)),
            (self.group.id, self.heartbeat(sender=9)),
            (self.group.id, self.heartbeat(to=third)),
            (apart.id, Heartbeat(1, 2, 1, 0)),
            (group_of(99), self.heartbeat()),
            (self.group.id, self.heartbeat()),
        )
        self.assertEqual(self.came, [(self.group.id, self.heartbeat())])
        self.assertEqual(self.post.passed_over, 5)

    def test_another_cluster(self) -> None:
        """Its group ids are the same ones, and its entries are not."""
        with self.assertRaises(MalformedRequest):
            self.receive(self.met(), (self.group.id, self.heartbeat()), cluster=b"\0" * 16)
        self.assertEqual(self.came, [])


class RoomTests(PostCase):
    """What some leader has taken must come through, whatever the limits of this node are."""

    def boxes(self, *connections: Connection) -> list[bool]:
        return [cast(Any, each).boxes == MEMBER_BOXES for each in connections]

    def test_members_have_room(self) -> None:
        """Others have not: they could fill the memory with it."""
        member, stranger, client = self.met(), self.met("node-2", "f" * 32), self.met("", "0" * 32)
        self.assertEqual(self.boxes(member, stranger, client), [True, False, False])
        self.assertTrue(self.post.has_room(member))
        self.assertFalse(self.post.has_room(stranger))

    def test_over_few_connections(self) -> None:
        """Else a name and an identity, which everybody can learn, are a licence for memory without
        end. The latest ones count: those before them may be dead without our knowing."""
        all_of = [self.met() for _ in range(ARRIVED_MAX + 2)]
        self.assertEqual(self.boxes(*all_of), [False] * 2 + [True] * ARRIVED_MAX)
        cast(Any, all_of[-1]).lost(None)
        self.assertEqual(self.boxes(*all_of)[:3], [False, True, True])
        self.assertFalse(self.post.has_room(all_of[-1]))


def append(group: int, to: int, sender: int, size_bytes: int, index: int = 1) -> Message:
    entry = Entry(index, 1, EntryKind.DATA, bytes(size_bytes))
    return AppendRequest(sender, to, 1, index - 1, 0, (entry,), 0)


class SendingTests(PostCase):
    def append(self, size_bytes: int) -> None:
        message = append(self.group.id, self.other, self.me, size_bytes)
        self.post.send(self.group.id, message)

    def sizes(self, link: FakeLink) -> list[int]:
        return [
            sum(len(entry.data) for entry in message.entries)
            for _, message in link.items
            if isinstance(message, AppendRequest)
        ]

    def test_one_box_for_a_turn(self) -> None:
        """What all groups have for a peer is one box: that is what makes many groups cheap."""
        for group in GROUPS.values():
            me, other = group.replica_of("node-1"), group.replica_of("node-2")
            if me and other:
                self.post.send(group.id, Heartbeat(me, other, 1, 0))
        self.assertEqual(self.control().told, [])
        self.post.flush()
        self.assertEqual(len(self.control().told), 1)
        self.assertGreater(len(self.control().items), 5)
        self.post.flush()
        self.assertEqual(len(self.control().told), 1)

    def test_large_appends_do_not_delay_heartbeats(self) -> None:
        """One large value on the link of the signs of life makes a healthy node look dead."""
        self.append(LARGE_BYTES + 1)
        self.post.send(self.group.id, Heartbeat(self.me, self.other, 1, 0))
        self.post.flush()
        self.assertEqual(self.sizes(self.bulk()), [LARGE_BYTES + 1])
        self.assertEqual(self.sizes(self.control()), [])
        self.assertEqual(len(self.control().items), 1)

    def test_nothing_overtakes_a_large_append(self) -> None:
        """What comes before the entries that it follows is refused, and all is sent again."""
        self.append(LARGE_BYTES + 1)
        for _ in range(BULK_TICKS - 1):
            self.post.tick()
        self.append(10)
        self.post.flush()
        self.assertEqual(self.sizes(self.bulk()), [LARGE_BYTES + 1, 10])
        self.post.tick()
        self.append(20)
        self.post.flush()
        self.assertEqual(self.sizes(self.control()), [20])

    def test_what_cannot_be_sent_is_not_kept(self) -> None:
        """It would be old when it could, and memory until then."""
        self.control().connection = None
        self.append(10)
        self.post.flush()
        self.control().connection = object()
        self.post.flush()
        self.assertEqual(self.control().told, [])

    def test_to_nobody(self) -> None:
        """A replica that there is not is sent nothing, and is no mistake either."""
        self.post.send(self.group.id, Heartbeat(self.me, 9, 1, 0))
        self.post.flush()
        for each in NAMES:
            self.assertEqual(self.control(each).told, [])


class SilenceTests(PostCase):
    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.post.tick()

    def hear(self, *names: str, willing: bool | None = True) -> None:
        for name in names:
            self.post.receive(
                self.met(name), {"cluster": CLUSTER, "messages": b"", "willing": willing}
            )

    def test_pulses(self) -> None:
        """A node whose groups have all fallen silent gives signs of life; a busy one need not."""
        self.ticks(3 * PULSE_TICKS)
        self.assertEqual([each["messages"] for each in self.control().told], [b""] * 3)
        self.post.send(self.group.id, Heartbeat(self.me, self.other, 1, 0))
        self.post.flush()
        self.ticks(PULSE_TICKS - 1)
        self.assertEqual(len(self.control().told), 4)

    def test_silence(self) -> None:
        """Said once, after an election timeout; and again after it was heard again."""
        self.hear("node-2", "node-3", "node-4")
        self.ticks(SILENT_TICKS - 1)
        self.hear("node-3", "node-4")
        self.assertEqual(self.silent, [])
        self.ticks(1)
        self.assertEqual(self.silent, ["node-2"])
        self.ticks(SILENT_TICKS - 2)
        self.assertEqual(self.silent, ["node-2"])
        self.assertEqual(self.post.heard_for_ticks("node-2"), 0)
        self.hear("node-2", "node-3", "node-4")
        self.ticks(SILENT_TICKS - 1)
        self.hear("node-3", "node-4")
        self.ticks(1)
        self.assertEqual(self.silent, ["node-2", "node-2"])

    def test_a_refused_redial(self) -> None:
        """Nobody is there: to wait for the silence would cost half a second of every `kill -9`. A
        connection that is lost and made again is no such thing."""
        link = self.control()
        self.hear("node-2")
        for connection in (None, object(), None):
            link.connection = connection
            link.changed(link)
        self.assertEqual(self.silent, [])
        link.changed(link)
        self.assertEqual(self.silent, ["node-2"])
        link.changed(link)
        self.assertEqual(self.silent, ["node-2"])

    def test_heard_without_a_pause(self) -> None:
        """What leadership goes by: from the end of a silence on, and only of who would lead."""
        self.hear("node-2")
        self.ticks(5)
        self.assertEqual(self.post.heard_for_ticks("node-2"), 5)
        self.hear("node-2", willing=None)
        self.assertEqual(self.post.heard_for_ticks("node-2"), 5)
        self.hear("node-2", willing=False)
        self.assertEqual(self.post.heard_for_ticks("node-2"), 0)
        self.hear("node-2", willing=None)
        self.assertEqual(self.post.heard_for_ticks("node-2"), 0)
        self.hear("node-2")
        self.assertEqual(self.post.heard_for_ticks("node-2"), 5)
        self.ticks(SILENT_TICKS)
        self.hear("node-2")
        self.ticks(3)
        self.assertEqual(self.post.heard_for_ticks("node-2"), 3)
        self.assertEqual(self.post.heard_for_ticks("nobody"), 0)

    def test_frozen_itself(self) -> None:
        """W7: a node that was stopped for a minute ticks once when it goes on; it has heard nobody
        because it did not listen, and accuses nobody."""
        self.hear("node-2", "node-3", "node-4")
        self.ticks(SILENT_TICKS - 2)
        self.ticks(1)  # a minute later, by the clock
        self.assertEqual(self.silent, [])
