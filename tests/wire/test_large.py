"""Large boxes on a connection: cut, joined, overtaken, refused, given up, cut off in the middle."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols import amp

from kvtwist.errors import NoAnswer, NotSent, Overloaded, TooLarge
from kvtwist.wire.boxes import ANSWER, COMMAND, BoxLimits, write_box
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import CompareAndSet, Get, Ping, Put
from kvtwist.wire.fragments import FRAGMENT, FRAGMENT_BYTES_MAX, Joiner, cut
from kvtwist.wire.greeting import Greeting, features
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.liveness import BETWEEN_BYTES_MAX
from tests.wire.test_flow import (
    SECONDS,
    FlowTestCase,
    StockClient,
    Transport,
    ask,
    boxes_in,
    error_in,
    tags,
    warnings,
)

MIB = 1 << 20
JOINS = Greeting(features=features(DEFAULT_LIMITS.boxes))
LARGE = b"".join(b"%8d" % number for number in range(3 * MIB // 8))


class LargeTestCase(FlowTestCase):
    """Ends whose peers have said in their greeting that they join fragments."""

    def server(self, **changes: Any) -> Transport:
        transport = super().server(**changes)
        transport.protocol.greeting = JOINS
        return transport

    def client(self, **changes: Any) -> Transport:
        transport = super().client(**changes)
        transport.protocol.greeting = JOINS
        return transport

    def put(self, client: Transport, value: bytes = LARGE) -> Any:
        """Ask for something large."""
        return client.protocol.call(Put, {"key": b"k", "value": value}, SECONDS)

    def carry(self, sender: Transport, receiver: Transport, size: int = 1 << 40) -> int:
        """Up to so many bytes go over; how many did."""
        data = sender.take(size)
        receiver.say(data)
        return len(data)

    def exchange(self, client: Transport, server: Transport) -> None:
        """All that there is to say, until all is quiet."""
        while self.carry(client, server) + self.carry(server, client):
            pass

    def fragments(self, *boxes: bytes) -> bytes:
        """The boxes, in fragments."""
        return b"".join(piece for box in boxes for piece in cut(box, MIB // 2))


class BothWaysTests(LargeTestCase):
    """Two ends of ours."""

    def test_request_and_answer(self) -> None:
        """Else large values cannot be written, or not be read."""
        client, server = self.client(), self.server()
        self.value = LARGE
        call = client.protocol.call(Get, {"key": b"k", "trace": LARGE}, SECONDS)
        boxes = boxes_in(asked := client.take())
        self.assertEqual({box[COMMAND] for box in boxes}, {FRAGMENT})
        server.say(asked)
        boxes = boxes_in(answered := server.take())
        self.assertEqual({box[COMMAND] for box in boxes}, {FRAGMENT})
        self.assertLessEqual(max(len(write_box(box)) for box in boxes), FRAGMENT_BYTES_MAX)
        client.say(answered)
        self.assertEqual(self.successResultOf(call)["value"], LARGE)
        self.assert_alive(server)

    def test_at_the_limit(self) -> None:
        """Else a box is cut for nothing, or one that is too long is sent whole."""
        for over in (-1, 0, 1):
            client = self.client()
            head = len(ask(Put, key=b"k", value=LARGE[: MIB - 1000])) - (MIB - 1000)
            self.put(client, LARGE[: FRAGMENT_BYTES_MAX - head + over])
            (first, *_) = boxes_in(client.take())
            self.assertEqual(first[COMMAND], b"Put" if over <= 0 else FRAGMENT)

    def test_two_at_once(self) -> None:
        """Else the parts of two values are mixed, or the second one never comes."""
        client, server = self.client(), self.server()
        calls = [self.put(client, LARGE), self.put(client, LARGE[::-1])]
        self.exchange(client, server)
        self.assertEqual(len(self.late), 2)
        for number in (0, 1):
            self.answer(number, 2 * MIB + number)
        self.exchange(client, server)
        self.assertEqual([self.successResultOf(call)["version"] for call in calls], [1, 1])

    def test_small_requests_overtake(self) -> None:
        """Else a ping waits behind a large value, and its sender takes the node for dead."""
        client, server = self.client(), self.server()
        large = self.put(client)
        self.carry(client, server, 1000)
        ping = client.protocol.call(Ping, {}, SECONDS)
        self.carry(client, server, FRAGMENT_BYTES_MAX)
        self.carry(server, client)
        self.assertEqual(self.successResultOf(ping), {})
        self.assertNoResult(large)
        self.assertEqual(self.late, [])

    def test_small_answers_overtake(self) -> None:
        """The same, for what is asked while a large answer is under way; so the node has to go on
        reading although its answer has not been taken."""
        client, server = self.client(), self.server()
        self.value = LARGE
        large = client.protocol.call(Get, {"key": b"k"}, SECONDS)
        self.carry(client, server)
        self.carry(server, client, 1000)
        for _ in range(3):
            ping = client.protocol.call(Ping, {}, SECONDS)
            self.carry(client, server)
            self.carry(server, client, FRAGMENT_BYTES_MAX)
            self.assertEqual(self.successResultOf(ping), {})
        self.exchange(client, server)
        self.assertEqual(self.successResultOf(large)["value"], LARGE)

    def test_large_among_small_of_one_read(self) -> None:
        """Else what is answered in one go takes a large answer with it, whole."""
        server = self.server()
        values = iter((b"a", LARGE, b"b"))

        def get(*_: Any) -> Any:
            return {"version": 1, "value": next(values)}

        codec, _ = server.protocol._work._table[b"Get"]
        server.protocol._work._table = {b"Get": (codec, get)}
        server.say(b"".join(ask(Get, tag, key=b"k") for tag in (1, 2, 3)))
        boxes = boxes_in(server.take())
        self.assertEqual(tags(box for box in boxes if ANSWER in box), [1, 3])
        self.assertEqual(sum(box.get(COMMAND) == FRAGMENT for box in boxes), 4)

    def test_who_cannot_join(self) -> None:
        """Else nodes of an older release, which do not know fragments, get no large values."""
        for greeting in (None, Greeting(), Greeting(features=("other",))):
            client = self.client()
            client.protocol.greeting = greeting
            self.put(client)
            self.assertEqual(client.take(), ask(Put, 1, key=b"k", value=LARGE))


class StockTests(LargeTestCase):
    """Programs with nothing but Twisted's AMP."""

    def test_client(self) -> None:
        """Else the ten-line program cannot read large values; its small answers come in step."""
        server, stock = self.server(), StockClient()
        server.protocol.greeting = None
        self.value = LARGE
        stock.makeConnection(wire := StringTransport())
        calls = [stock.callRemote(Get, key=b"k") for _ in range(2)]
        ping = stock.callRemote(Ping)
        server.say(wire.value())
        for at in range(0, len(answers := server.take()), 100_000):
            stock.dataReceived(answers[at : at + 100_000])
        self.assertEqual([self.successResultOf(call)["value"] for call in calls], [LARGE, LARGE])
        self.assertEqual(self.successResultOf(ping), {})

    def test_server(self) -> None:
        """Else our client cannot write a large value to somebody's server."""

        class StockServer(amp.AMP):
            """Somebody's server."""

            @Put.responder
            def put(self, value: bytes, **_: Any) -> dict[str, int]:
                return {"version": len(value)}

        client, stock = self.client(), StockServer()
        client.protocol.greeting = None
        stock.makeConnection(wire := StringTransport())
        call = self.put(client)
        stock.dataReceived(client.take())
        client.say(wire.value())
        self.assertEqual(self.successResultOf(call)["version"], len(LARGE))


class RefusedTests(LargeTestCase):
    """What is too large, and what makes no sense."""

    def test_too_large(self) -> None:
        """Else a value over the limit is not refused but ends the connection, and with it all that
        is in flight there."""
        size = len(ask(Put, key=b"k", value=LARGE)) - len(b"\0\0")
        for limit in (size - 1, size, size + 1):
            self.late.clear()
            server = self.server(boxes=BoxLimits(limit, 1000))
            client = self.client()
            call = self.put(client)
            self.exchange(client, server)
            if limit < size:
                error = self.failureResultOf(call, TooLarge).value
                self.assertEqual(error.details()["setting"], "box_bytes_max")
            else:
                self.answer(0)
                self.exchange(client, server)
                self.assertEqual(self.successResultOf(call)["version"], 1)
            self.assert_alive(server)

    def test_joined_is_work(self) -> None:
        """T5: else the bytes of requests that are worked on are not bounded if they come in
        fragments."""
        server = self.server(request_bytes_in_flight_max=5 * MIB)
        for tag in (1, 2):
            server.say(self.fragments(ask(Put, tag, key=b"k", value=LARGE)))
        (box,) = boxes_in(server.take())
        error = error_in(box)
        assert isinstance(error, Overloaded)
        self.assertEqual(error.setting, "request_bytes_in_flight_max")
        self.assertEqual(len(self.late), 1)

    def test_nonsense(self) -> None:
        """Else fragments that make no box are waited for, or read as something else."""
        (first, second, *_) = cut(ask(Put, key=b"k", value=LARGE))
        for said in (second, first + first, first + second + first):
            server = self.server()
            with warnings() as lines:
                server.protocol.dataReceived(said)
            self.assert_dropped(server, lines, "number")
            self.assertEqual(server.take(), b"")
        self.assertEqual(self.late, [])

    def test_oversized_fragment(self) -> None:
        """Else a part of a value is passed over without a word, and its sender waits."""
        server = self.server(boxes=BoxLimits(MIB, 1000))
        with warnings() as lines:
            server.say(next(cut(ask(Put, key=b"k", value=LARGE), 2 * MIB)))
        self.assert_dropped(server, lines, f"box_bytes_max={MIB}")

    def test_answers_over_the_limit(self) -> None:
        """Else a client that asks for two large values at once is cut off, although it reads: each
        of them alone may be over the limit. Answers that come later, and pile up, may not."""
        server = self.server(answer_bytes_unread_max=MIB)
        self.value = LARGE
        server.say(ask(CompareAndSet, 1, key=b"k", value=b"", version=0))
        server.say(b"".join(ask(Get, tag, key=b"k") for tag in (2, 3, 4)))
        self.assertEqual(len(self.got), 2)
        self.assertFalse(server.aborted)
        with warnings() as lines:
            self.answer(0, 10)
        self.assert_dropped(server, lines, f"answer_bytes_unread_max={MIB}")

    def test_who_only_asks_joins_too(self) -> None:
        """Else a client cannot read what it has not sent itself."""
        client = self.client()
        call = client.protocol.call(Get, {"key": b"k"}, SECONDS)
        answer = {"version": 1, "value": LARGE}
        client.say(self.fragments(codec_of(Get).write_answer(b"1", answer)))
        self.assertEqual(self.successResultOf(call)["value"], LARGE)
        with warnings() as lines:
            client.say(next(cut(b"\xff\xff")))
        self.assert_dropped(client, lines, "a key of")


class EndTests(LargeTestCase):
    """Large boxes whose connection, caller or time comes to an end."""

    def test_lost_in_the_middle(self) -> None:
        """Else a caller waits for its time limit; or what has come of a value stays in memory."""
        client, server = self.client(), self.server()
        call = self.put(client)
        self.carry(client, server, 2 * MIB)
        self.assertGreater(server.protocol._intake.joiner.reader.held_bytes, MIB)
        for end in (client, server):
            end.go()
            protocol = end.protocol
            self.assertEqual(
                protocol._intake.joiner.reader.held_bytes + protocol._outbox.unread_bytes, 0
            )
        self.failureResultOf(call, NoAnswer)
        self.assertEqual(self.late, [])

    def test_given_up_before_it_began(self) -> None:
        """Else a node is sent values whose writers have given up; and others are late for it."""
        client, server = self.client(), self.server()
        first, second, third = (self.put(client) for _ in range(3))
        self.carry(client, server, 1000)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.exchange(client, server)
        self.assertEqual(len(self.late), 2)
        for number in (0, 1):
            self.answer(number)
        self.exchange(client, server)
        for call in (first, third):
            self.successResultOf(call)

    def test_given_up_in_the_middle(self) -> None:
        """Else the rest of the stream is out of step."""
        client, server = self.client(), self.server()
        call = self.put(client)
        self.carry(client, server, 1000)
        self.clock.pump([SECONDS, 1.0])
        self.failureResultOf(call, NoAnswer)
        again = self.put(client)
        self.exchange(client, server)
        self.assertEqual(len(self.late), 2)
        self.answer(1)
        self.exchange(client, server)
        self.successResultOf(again)

    def test_given_up_again_and_again(self) -> None:
        """T7: else requests to a node that takes nothing are kept, though all of them have
        failed."""
        client = self.client(request_bytes_in_flight_max=10 * MIB)
        most = 0
        for _ in range(20):
            calls = [self.put(client), *(self.put(client, LARGE[: MIB // 2]) for _ in range(8))]
            self.clock.pump([SECONDS, 1.0])
            for call in calls:
                self.failureResultOf(call, NoAnswer, NotSent, Overloaded)
            most = max(most, client.protocol._outbox.unread_bytes)
        self.assertLess(most, len(LARGE) + 2 * MIB)
        self.assertNoResult(self.put(client))

    def test_closed(self) -> None:
        """Else a node that stops, or whose peer has half-closed, leaves out an answer's end."""
        for end in ("close", "readConnectionLost"):
            server = self.server()
            self.value = LARGE
            server.say(ask(Get, key=b"k"))
            getattr(server.protocol, end)()
            joiner = Joiner(DEFAULT_LIMITS.boxes)
            boxes = [joiner.feed(box) for box in boxes_in(server.take())]
            self.assertEqual(tags(box for box in boxes if box), [1])
            assert server.lost is not None, f"still open after {end}"
            self.assertTrue(server.lost.check(ConnectionDone))

    def test_closed_by_its_service(self) -> None:
        """Else a client service that hangs up, which tells the transport and not us, waits for ever
        for a connection on which something was still to be sent."""
        client = self.client()
        self.put(client).addErrback(lambda failure: failure.trap(NoAnswer))
        client.loseConnection()
        self.assertGreater(len(client.take()), len(LARGE))
        self.assertIsNotNone(client.lost)


class SweepTests(LargeTestCase):
    """T5: fragments that begin and do not end. Sweeps are five seconds apart."""

    def begun(self) -> Transport:
        """A server that has the first fragments of a box."""
        server = self.server(box_bytes_per_second_min=100)
        self.rest = self.fragments(ask(Put, key=b"k", value=LARGE))
        server.say(self.rest[:MIB])
        self.rest = self.rest[MIB:]
        server.protocol.sweep(5.0)
        return server

    def test_between_two_fragments(self) -> None:
        """Else half a value is kept for as long as its sender likes."""
        server = self.begun()
        with warnings() as lines:
            server.protocol.sweep(5.0)
        self.assert_dropped(server, lines, "box_bytes_per_second_min=100")

    def test_progress(self) -> None:
        """Else a large value over a slow line is cut off though it goes on."""
        for size, stays in ((499, False), (500, True), (501, True)):
            server = self.begun()
            for at in range(0, 10 * size if stays else size, size):
                server.say(self.rest[at : at + size])
                server.protocol.sweep(5.0)
            self.assertEqual(server.aborted, not stays)

    def test_others_say_nothing_of_it(self) -> None:
        """Else half a value is kept for as long as its sender likes to ping."""
        server = self.server(box_bytes_per_second_min=10_000)
        pings = ask(Ping) * (50_000 // len(ask(Ping)) + 1)
        server.say(next(cut(ask(Put, key=b"k", value=LARGE))))
        server.protocol.sweep(5.0)
        with warnings() as lines:
            for number in range(1, BETWEEN_BYTES_MAX // 50_000 + 2):
                self.assertFalse(server.aborted, f"an honest sender may do so: {number}")
                server.say(pings)
                server.take()
                server.protocol.sweep(5.0)
        self.assert_dropped(server, lines, "box_bytes_per_second_min=10000")

    def test_next_value(self) -> None:
        """Else who sends one value after the other is cut off because a sweep always finds it
        within some value."""
        server = self.begun()
        for _ in range(5):
            server.say(self.rest)
            self.rest = self.fragments(ask(Put, key=b"k", value=LARGE))
            server.say(self.rest[:600_000])
            self.rest = self.rest[600_000:]
            server.protocol.sweep(5.0)
        self.assertFalse(server.aborted)

    def test_taking_fragments_is_a_sign_of_life(self) -> None:
        """Else who reads a large answer slowly is hung up on for being silent."""
        server = self.server(idle_seconds_max=5)
        self.value = LARGE
        server.say(ask(Get, key=b"k"))
        for _ in range(6):
            server.protocol.sweep(4.0)
            self.assertFalse(server.aborted)
            server.take(FRAGMENT_BYTES_MAX // 2)
