"""A node's limits: from the command line to the connection, and the connections themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist import tap
from kvtwist.errors import TooLarge
from kvtwist.node import server as server_module
from kvtwist.node.limits import Limits
from kvtwist.node.server import SWEEP_SECONDS, Server
from kvtwist.wire import link as link_module
from kvtwist.wire.boxes import (
    ANSWER,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    VALUE_BYTES_MAX,
    Box,
    BoxLimits,
    BoxReader,
)
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import CompareAndSet, Delete, Get, Ping, Put
from kvtwist.wire.connection import Connection
from kvtwist.wire.failures import read_failure
from kvtwist.wire.limits import ConnectionLimits
from tests.cluster import SimulatedCluster

TRANSPORT_BYTES_MAX = 1 << 16
WIDE_OPEN = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 30)

Command = type[amp.Command]


class Dialled(StringTransport):
    """A connection that somebody has dialled; it says when it has enough, as TCP does."""

    def __init__(self, protocol: Connection, host: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 4000))
        self.protocol = protocol
        self.is_full = False
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and self.io.tell() > TRANSPORT_BYTES_MAX:
            self.is_full = True
            self.producer.pauseProducing()

    def ask(self, command: Command, **arguments: Any) -> Box:
        """The answer to a request."""
        self.protocol.dataReceived(codec_of(command).write_request(b"1", arguments))
        reader = BoxReader(WIDE_OPEN)
        boxes = reader.feed(self.taken())
        while self.is_full:
            self.is_full = False
            self.protocol.resumeProducing()
            boxes += reader.feed(self.taken())
        (box,) = boxes
        return box

    def taken(self) -> bytes:
        """What there is to be read, read."""
        data: bytes = self.value()
        self.clear()
        return data

    def lose(self) -> None:
        """The connection is over."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


@contextmanager
def warnings() -> Iterator[list[str]]:
    """The lines for people to look at."""
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    lines += [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]


class NodeTestCase(SynchronousTestCase):
    """One node, which is a cluster, and whoever dials it."""

    def start(self, limits: Limits) -> None:
        """Start it."""
        self.cluster = SimulatedCluster(1, limits)
        self.cluster.found()

    def server(self) -> Server:
        """What it listens with."""
        return self.cluster.nodes[1].server

    def dial(self, host: str = "10.0.2.1") -> Dialled | None:
        """Dial it; nothing, when it refuses."""
        protocol = self.server().buildProtocol(IPv4Address("TCP", host, 4000))
        return None if protocol is None else Dialled(protocol, host)

    def served(self, host: str = "10.0.2.1") -> Dialled:
        """Dial it, and be served."""
        dialled = self.dial(host)
        assert dialled is not None, "refused"
        self.assertEqual(dialled.ask(Ping), {ANSWER: b"1"})
        return dialled

    def refused(self, host: str = "10.0.2.1") -> None:
        """Dial it, and be refused."""
        self.assertIsNone(self.dial(host))


class ConnectionsTests(NodeTestCase):
    """T5: how many connections there may be."""

    def test_in_all(self) -> None:
        """Else a node runs out of files, and then neither clients nor its peers get in."""
        self.start(Limits(connections_max=3))
        open_ones = [self.served(f"10.0.2.{number}") for number in (1, 2, 3)]
        with warnings() as lines:
            self.refused("10.0.2.4")
        self.assertEqual(len(lines), 1)
        self.assertIn("10.0.2.4", lines[0])
        self.assertIn("connections_max=3", lines[0])
        open_ones[1].lose()
        self.served("10.0.2.4")
        self.refused("10.0.2.5")

    def test_of_one_address(self) -> None:
        """Else one client takes all the connections that there are; it must not cost the others."""
        self.start(Limits(connections_per_address_max=2))
        first, _ = self.served(), self.served()
        with warnings() as lines:
            self.refused()
        self.assertEqual(len(lines), 1)
        self.assertIn("10.0.2.1", lines[0])
        self.assertIn("connections_per_address_max=2", lines[0])
        self.served("10.0.2.2")
        first.lose()
        self.served()
        self.refused()

    def test_one_line_a_second(self) -> None:
        """Else whoever dials again and again fills the disk with log lines."""
        self.start(Limits(connections_max=1))
        self.served()
        with warnings() as lines:
            for _ in range(3):
                for number in range(50):
                    self.refused(f"10.0.3.{number}")
                self.cluster.run(1.0)
        self.assertEqual(len(lines), 3)
        self.assertIn("(and 49 more such lines)", lines[1])

    def test_room_again(self) -> None:
        """Else each refusal, or each connection that ends, costs a place for good."""
        for limits in (Limits(connections_max=2), Limits(connections_per_address_max=2)):
            self.start(limits)
            kept = self.served()
            for _ in range(20):
                passing = self.served()
                self.refused()
                self.refused()
                passing.lose()
            kept.lose()
            self.served()
            self.served()
            self.refused()

    def test_garbage(self) -> None:
        """The same, for connections that the node drops."""
        self.start(Limits(connections_max=1))
        for _ in range(5):
            dialled = self.served()
            dialled.protocol.dataReceived(b"GET / HTTP/1.1\r\n")
            self.assertTrue(dialled.disconnected)
            dialled.lose()
        self.served()

    def test_peers_get_in(self) -> None:
        """Else a limit that is large enough for the nodes alone keeps a cluster from founding."""
        cluster = SimulatedCluster(3, Limits(connections_max=4, connections_per_address_max=2))
        cluster.found()


class SweepTests(NodeTestCase):
    """T8: the node looks after its connections, on its own."""

    idle_seconds = 20

    def test_idle(self) -> None:
        """Else dead peers hold their connections for ever; or one that has been silent for less
        than the setting says is hung up on, because it came at the wrong moment."""
        self.start(Limits(idle_seconds_max=self.idle_seconds))
        for moment in range(10):
            self.cluster.run(SWEEP_SECONDS / 10)
            for says_something in (True, False):
                dialled = self.served() if says_something else self.dial()
                assert dialled is not None
                self.cluster.run(self.idle_seconds - 0.1)
                self.assertFalse(dialled.disconnected, f"too early, at moment {moment}")
                self.cluster.run(0.1 + 2 * SWEEP_SECONDS)
                self.assertTrue(dialled.disconnected, "too late")
                dialled.lose()

    def test_slow_box(self) -> None:
        """T5: else half a request holds its memory for as long as an attacker likes."""
        self.start(Limits(box_bytes_per_second_min=10))
        slow, fast = self.served(), self.served()
        request = codec_of(Get).write_request(b"1", {"key": b"k", "trace": b"t" * 5000})
        for at in range(10):
            slow.protocol.dataReceived(request[at : at + 1])
            fast.protocol.dataReceived(request[100 * at : 100 * (at + 1)])
            self.cluster.run(SWEEP_SECONDS)
        self.assertTrue(slow.disconnected)
        self.assertFalse(fast.disconnected)
        fast.protocol.dataReceived(request[1000:])
        self.assertIn(b"version", fast.value())


class SizeTests(NodeTestCase):
    """Keys and values, at their limits to the byte."""

    def error(self, dialled: Dialled, command: Command, **arguments: Any) -> TooLarge | None:
        """The error that answers a request, if there is one; the connection lives on."""
        box = dialled.ask(command, **arguments)
        self.assertFalse(dialled.disconnecting)
        self.assertEqual(dialled.ask(Ping), {ANSWER: b"1"})
        if ANSWER in box:
            return None
        error = read_failure(box[ERROR_CODE], box[ERROR_DESCRIPTION])
        assert isinstance(error, TooLarge)
        self.assertIn(error.setting, str(error))
        return error

    def test_key(self) -> None:
        """Else a key is refused below the limit that its error names, or taken above it, at one
        command or another."""
        self.start(Limits(key_bytes_max=100))
        dialled = self.served()
        rest: dict[Command, dict[str, Any]] = {
            Get: {},
            Put: {"value": b""},
            Delete: {},
            CompareAndSet: {"value": b"", "version": 0},
        }
        for command, more in rest.items():
            for size in (99, 100):
                self.assertIsNone(self.error(dialled, command, key=b"k" * size, **more))
            error = self.error(dialled, command, key=b"k" * 101, **more)
            assert error is not None
            self.assertEqual(
                (error.setting, error.limit, error.actual), ("key_bytes_max", 100, 101)
            )

    def test_value(self) -> None:
        """The same, for values; and a value that is a little too long is refused by its own
        setting, not by the box's, which says nothing to a user."""
        for limit in (1, 100_000, 300_000):
            self.start(Limits(value_bytes_max=limit))
            dialled = self.served()
            rest: dict[Command, dict[str, Any]] = {Put: {}, CompareAndSet: {"version": 0}}
            for command, more in rest.items():
                for size in (limit - 1, limit):
                    value = b"v" * size
                    self.assertIsNone(self.error(dialled, command, key=b"k", value=value, **more))
                for size in (limit + 1, 2 * limit):
                    value = b"v" * size
                    error = self.error(dialled, command, key=b"k", value=value, **more)
                    assert error is not None
                    self.assertEqual((error.setting, error.limit), ("value_bytes_max", limit))
                    self.assertEqual(error.actual, size)

    def test_box(self) -> None:
        """Else a request far beyond all limits drops the connection, with all that is on it."""
        self.start(Limits(value_bytes_max=1000))
        error = self.error(self.served(), Put, key=b"k", value=b"v" * 1_000_000)
        assert error is not None
        self.assertEqual(error.setting, "box_bytes_max")

    def test_largest_value_is_read_back(self) -> None:
        """Else a user who raises value_bytes_max, and nothing else, can write values that nobody
        can ever read: the connection is dropped at each try."""
        value = b"16 bytes of it.." * (40 << 16)
        self.start(Limits(value_bytes_max=len(value)))
        dialled = self.served()
        self.assertIn(b"version", dialled.ask(Put, key=b"k", value=value))
        box = dialled.ask(Get, key=b"k")
        self.assertFalse(dialled.disconnected, "dropped because of its own answer")
        self.assertTrue(codec_of(Get).read_answer(box)["value"] == value)


class DerivedTests(SynchronousTestCase):
    """`Limits.of_connection`."""

    def test_passed_on(self) -> None:
        """Else a setting is there and does nothing, or does another one's work."""
        names = [each.name for each in fields(Limits)]
        limits = Limits(**{name: 1000 + number for number, name in enumerate(names)})
        derived = limits.of_connection()
        for each in fields(ConnectionLimits):
            if each.name != "boxes":
                self.assertEqual(getattr(derived, each.name), getattr(limits, each.name))
        for each in fields(BoxLimits):
            self.assertEqual(getattr(derived.boxes, each.name), getattr(limits, each.name))

    def test_same_defaults(self) -> None:
        """Else a node's connections and a client's differ, and no one knows why."""
        self.assertEqual(Limits().of_connection(), ConnectionLimits())

    def test_box_of_the_largest_value(self) -> None:
        """Else a value at the limit, with the longest key and everything optional, is refused as
        a box; or a value one byte over is, by a setting that the user has never heard of."""
        for value_bytes_max in (1, 65_535, 65_536, 1 << 20, 16 << 20, 64 << 20):
            limits = Limits(value_bytes_max=value_bytes_max)
            boxes = limits.of_connection().boxes
            over = b"v" * (value_bytes_max + 1)
            request = codec_of(CompareAndSet).write_request(
                b"f" * 16,
                {
                    "key": b"k" * (limits.key_bytes_max + 1), "value": over, "version": 1 << 62,
                    "trace": b"t" * 65_535, "keyspace": 0, "timeout_ms": 60_000, "forwarded": True,
                },
            )  # fmt: skip
            self.assertLessEqual(len(request), boxes.box_bytes_max)
            (box,) = BoxReader(boxes).feed(request)
            self.assertIs(type(box), dict)

    def test_boxes_grow_with_values(self) -> None:
        """Else a node with small values lets endless boxes in all the same."""
        small, large = (Limits(value_bytes_max=size).of_connection().boxes for size in (1, 1 << 24))
        self.assertLess(small.box_bytes_max, 1 << 20)
        self.assertLess(small.box_pairs_max, large.box_pairs_max)
        self.assertLess(large.box_bytes_max, 3 << 24)

    def test_pairs_of_the_largest_box(self) -> None:
        """Else a user who raises box_bytes_max, for more keys in a request, is refused by
        box_pairs_max, of which the help says that 0 is enough for the largest box."""
        for box_bytes_max in (1 << 10, 1 << 20, 1 << 26, 1 << 28):
            boxes = Limits(box_bytes_max=box_bytes_max).of_connection().boxes
            self.assertEqual(boxes.box_bytes_max, box_bytes_max)
            self.assertGreater(boxes.box_pairs_max, box_bytes_max // VALUE_BYTES_MAX + 20)

    def test_both_given(self) -> None:
        """Else what a user says is overruled by what we think is right."""
        limits = Limits(box_bytes_max=5000, box_pairs_max=7)
        self.assertEqual(limits.of_connection().boxes, BoxLimits(5000, 7))


class OptionTests(SynchronousTestCase):
    """``twistd kvnode``'s options."""

    def options(self, *words: str) -> tap.Options:
        """The options that a command line sets."""
        options = tap.Options()
        options.parseOptions(list(words))
        return options

    def test_defaults(self) -> None:
        """Else a node started without options has other limits than the documentation says."""
        self.assertEqual(self.options().config.limits, Limits())

    def test_each_has_an_option(self) -> None:
        """Else an error names a setting that nobody can set."""
        for number, each in enumerate(fields(Limits), start=100 << 20):
            option = f"--{each.name.replace('_', '-')}={number}"
            expected = replace(Limits(), **{each.name: number})
            self.assertEqual(self.options(option).config.limits, expected)

    def test_help(self) -> None:
        """Else a user finds neither what a setting means nor what it is."""
        usage = " ".join(tap.Options().getUsage(width=10_000).split())
        for each in fields(Limits):
            meaning = each.metadata["meaning"]
            self.assertTrue(meaning.endswith("."), each.name)
            option = f"--{each.name.replace('_', '-')}="
            self.assertIn(f"{option} {meaning} [default: {each.default}]", usage)

    def test_impossible(self) -> None:
        """Else a node starts that refuses everything, or has no limit at all."""
        lines: list[str] = []
        self.patch(tap, "_complain", lines.append)
        for each in fields(Limits):
            bad = ["-1", "x", "1.5", "", "1_0", *([] if each.default == 0 else ["0"])]
            for text in bad:
                option = f"--{each.name.replace('_', '-')}={text}"
                ended = self.assertRaises(SystemExit, self.options, option)
                self.assertEqual(ended.code, tap.EXIT_USAGE, option)
        self.assertEqual(
            self.options("--box-bytes-max=0", "--box-pairs-max=0").config.limits, Limits()
        )

    def test_it_reaches_the_connections(self) -> None:
        """Else the options are parsed and forgotten."""
        used: list[ConnectionLimits] = []

        class Noted(Connection):
            def __init__(self, *args: Any, **named: Any) -> None:
                super().__init__(*args, **named)
                used.append(self._limits)

        self.patch(server_module, "Connection", Noted)
        self.patch(link_module, "Connection", Noted)
        limits = self.options("--value-bytes-max=5000", "--idle-seconds-max=77").config.limits
        SimulatedCluster(2, limits).found()
        self.assertEqual(len(used), 2 * 2 * 2, "each dials each twice, and both ends are counted")
        self.assertEqual(set(used), {limits.of_connection()})
