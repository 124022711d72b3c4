"""Errors across the wire: what comes out is what went in, and nothing that comes in does harm."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import (
    ConfigurationError,
    DiskFull,
    HelloRefused,
    KvtwistError,
    MalformedRequest,
    ManyFailed,
    NoAnswer,
    NodeFault,
    NotANumber,
    NotDone,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    Refused,
    SessionRefused,
    TooLarge,
    Unavailable,
    UnknownCommand,
    VersionMismatch,
    WrongGeneration,
)
from kvtwist.wire.failures import (
    CLASSES,
    DESCRIPTION_BYTES_MAX,
    crosses_the_wire,
    pack_failure,
    read_failure,
    unpack_failure,
    write_failure,
)
from tests.wire.properties import examples

SAMPLES: tuple[KvtwistError, ...] = (
    DiskFull("the disk is full: No space left on device"),
    HelloRefused("node-1 at a:1 belongs to cluster 1", reason="cluster"),
    MalformedRequest("Delete: version is missing"),
    NodeFault("the node failed at 'Put'; its log says why"),
    NotANumber("what is there is no number", version=2**63 - 1),
    NotLeader("node-2 owns it", leader="node-2", epoch=2**63 - 1),
    OutOfRange("the sum would be no int64", version=7),
    OutcomeUnknown("no answer within 1 s"),
    Overloaded("too much is in flight", setting="requests_in_flight_max", limit=7),
    Refused("keyspace 7 is not served"),
    SessionRefused("there is no session 7", reason="unknown"),
    TooLarge("over value_bytes_max=9", setting="value_bytes_max", limit=9, actual=2**40),
    Unavailable("nobody is there", waiting_for=["node-1", "10.0.0.5:8001", "größer"]),
    UnknownCommand("there is no command 'Sing' here"),
    WrongGeneration("it was sent for generation 1", generation=2),
)

texts = st.text(max_size=60).map(lambda text: " ".join(text.split()))
numbers = st.integers(0, 2**63 - 1)
errors: st.SearchStrategy[KvtwistError] = st.one_of(
    *(
        st.builds(cls, texts)
        for cls in (MalformedRequest, NodeFault, OutcomeUnknown, Refused, UnknownCommand)
    ),
    st.builds(HelloRefused, texts, reason=st.text(max_size=60)),
    st.builds(NotLeader, texts, leader=st.text(max_size=60), epoch=numbers),
    st.builds(Overloaded, texts, setting=st.text(max_size=60), limit=numbers),
    st.builds(TooLarge, texts, setting=st.text(max_size=60), limit=numbers, actual=numbers),
    st.builds(Unavailable, texts, waiting_for=st.lists(st.text(max_size=60), max_size=9)),
)
codes = st.sampled_from([cls.code.encode() for cls in CLASSES])
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reason", "owner", "epoch", "setting", "limit", "waiting_for", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)

thoroughly = examples(100)


def across(error: KvtwistError) -> KvtwistError:
    """What the other end gets."""
    return read_failure(*write_failure(error))


def described(error: KvtwistError) -> tuple[type[KvtwistError], str, dict[str, Any]]:
    """All there is to an error."""
    return type(error), str(error), error.details()


class RoundTripTests(SynchronousTestCase):
    """From one end to the other."""

    def test_each_class(self) -> None:
        """Else a program cannot tell what to do about an error, or shows half of it."""
        self.assertEqual({type(error) for error in SAMPLES}, set(CLASSES))
        for error in SAMPLES:
            self.assertTrue(crosses_the_wire(error))
            self.assertEqual(described(across(error)), described(error))

    def test_each_class_bare(self) -> None:
        """The same, with no message and no details."""
        for cls in CLASSES:
            self.assertEqual(described(across(cls())), described(cls()))

    @thoroughly
    @given(errors)
    def test_any_error(self, error: KvtwistError) -> None:
        """The same, with any message and any details."""
        self.assertEqual(described(across(error)), described(error))

    @thoroughly
    @given(errors)
    def test_packed(self, error: KvtwistError) -> None:
        """The same, for the errors of single keys in the answer to a request for many."""
        self.assertEqual(described(unpack_failure(pack_failure(error))), described(error))

    def test_relayed(self) -> None:
        """Else an error means less with each node that passes it on."""
        for error in SAMPLES:
            self.assertEqual(described(across(across(error))), described(error))

    def test_codes_and_text_are_plain(self) -> None:
        """Else a stock AMP client, which shows the description, shows something unreadable."""
        for error in SAMPLES:
            code, description = write_failure(error)
            self.assertEqual(code, type(error).code.encode())
            first, *rest = description.split(b"\n")
            self.assertEqual(first.decode(), str(error))
            self.assertEqual(len(rest), 1 if error.detail_names else 0)
            if rest:
                self.assertEqual(list(json.loads(rest[0])), list(error.detail_names))

    def test_local_refinements(self) -> None:
        """Else "nothing has left *my* process" is read at the other end as being about *its*
        process, and a write is taken for never sent."""
        arrived = across(NotSent("node-3 cannot be reached", waiting_for=["node-3"]))
        self.assertEqual(
            described(arrived),
            (Unavailable, "node-3 cannot be reached", {"waiting_for": ("node-3",)}),
        )
        arrived = across(NoAnswer("no answer within 1 s"))
        self.assertEqual(described(arrived), (OutcomeUnknown, "no answer within 1 s", {}))

    def test_what_does_not_cross(self) -> None:
        """Else an error of the node's own, such as a traceback's text, is told to strangers as if
        it were about their request."""
        for error in (
            KvtwistError("x"), ConfigurationError("x"), NotDone("x"), VersionMismatch("x"),
            ManyFailed("x"), ValueError("x"), KeyError("x"), OSError(5, "x"),
        ):  # fmt: skip
            self.assertFalse(crosses_the_wire(error))
        self.assertTrue(crosses_the_wire(NotSent("x")))
        self.assertTrue(crosses_the_wire(NoAnswer("x")))

    def test_outcomes_are_kept(self) -> None:
        """Else a client sends a write again that may have been done."""
        for error in (*SAMPLES, NotSent("x"), NoAnswer("x")):
            for outcome in (NotDone, OutcomeUnknown):
                self.assertEqual(isinstance(across(error), outcome), isinstance(error, outcome))


class TextTests(SynchronousTestCase):
    """Messages that do not fit on one line, or not at all."""

    def test_newlines(self) -> None:
        """Else the second line of a message is read as the details, and the log shows two lines."""
        for message in ("two\nlines", "two\r\nlines", "two \n\n lines\n", "two\u2028lines"):
            for cls in (Refused, Unavailable):
                self.assertEqual(str(across(cls(message))), "two lines")
        arrived = across(Unavailable('a\n{"waiting_for": ["x"]}', waiting_for=["b"]))
        self.assertEqual(arrived.details(), {"waiting_for": ("b",)})
        arrived = across(Refused('a\n{"waiting_for": ["x"]}'))
        self.assertEqual(str(arrived), 'a {"waiting_for": ["x"]}')

    def test_newlines_in_details(self) -> None:
        """Else a strange name makes the details unreadable."""
        error = Unavailable("a", waiting_for=["two\nlines", "", '"', "\0"])
        self.assertEqual(described(across(error)), described(error))

    def test_long_message(self) -> None:
        """Else an error is too long for an AMP value, and is never told: the caller waits."""
        for message in ("x" * 100_000, "word " * 20_000, "\0" * 100_000):
            for error in (Refused(message), TooLarge(message, setting="s", limit=1, actual=2)):
                code, description = write_failure(error)
                self.assertLessEqual(len(description), DESCRIPTION_BYTES_MAX)
                arrived = read_failure(code, description)
                self.assertEqual(arrived.details(), error.details())
                self.assertTrue(message.startswith(str(arrived)))
                self.assertGreater(len(str(arrived)), 1000)
        self.assertLess(DESCRIPTION_BYTES_MAX, 65_535)

    def test_long_message_in_any_alphabet(self) -> None:
        """Else the last letter of a long message is cut in half and shown as a question mark."""
        for letter in ("é", "€", "𝄞"):
            for shift in range(4):
                message = "x" * shift + letter * 50_000
                self.assertTrue(message.startswith(str(across(Refused(message)))), letter)

    def test_long_details(self) -> None:
        """The same, for details; then the message alone has to do."""
        for number in (10, 1000, 100_000):
            error = Unavailable("nobody is there", waiting_for=["node"] * number)
            code, description = write_failure(error)
            self.assertLessEqual(len(description), DESCRIPTION_BYTES_MAX)
            arrived = read_failure(code, description)
            self.assertEqual(described(arrived)[:2], (Unavailable, "nobody is there"))
            self.assertIn(arrived.details()["waiting_for"], (error.waiting_for, ()))
        both = Unavailable("x" * 100_000, waiting_for=["y" * 100_000])
        self.assertLessEqual(len(write_failure(both)[1]), DESCRIPTION_BYTES_MAX)
        self.assertIsInstance(across(both), Unavailable)

    def test_details_that_json_does_not_have(self) -> None:
        """T4: else a responder's mistake in the details of an error is no answer but a lost
        connection, with everything that is in flight on it."""
        strange: Any = [b"node-1", object()]
        error = across(Unavailable("nobody is there", waiting_for=strange))
        self.assertEqual(described(error)[:2], (Unavailable, "nobody is there"))

    def test_lone_surrogates(self) -> None:
        """T4: else an error about a file whose name is not UTF-8 is no answer but a lost
        connection, with everything that is in flight on it."""
        error = across(Refused("cannot read b\udcff.sst"))
        self.assertIsInstance(error, Refused)
        self.assertIn("cannot read b", str(error))
        named = across(Unavailable("nobody", waiting_for=["b\udcff"]))
        self.assertIsInstance(named, Unavailable)


class HostileTests(SynchronousTestCase):
    """What a peer may say that is not ours, or means harm."""

    def test_unknown_code(self) -> None:
        """Else an error of a later release is read as "not done", and a write is done twice."""
        for code in (b"SHINY", b"", b"UNKNOWN", b"refused", b"\xff\0\n"):
            error = read_failure(code, b"it did not work\n{}")
            self.assertIs(type(error), OutcomeUnknown)
            self.assertIn("it did not work", str(error))
        self.assertIn("SHINY", str(read_failure(b"SHINY", b"")))

    def test_unknown_code_is_shown_on_one_line(self) -> None:
        """Else a strange peer's errors take as many lines of a log as it likes."""
        for code in (b"\n", b"NO\nWAY\r\n", b"\xff\n", b"C" * 60_000):
            for description in (b"it did not work", b"it did not work\n{}"):
                shown = str(read_failure(code, description))
                self.assertEqual(len(shown.splitlines()), 1)
                self.assertLess(len(shown), 1000)

    def test_garbage_for_details(self) -> None:
        """Else a damaged error is no error at all, and the caller waits for its time limit."""
        for typed in (
            b"", b"{", b"nonsense", b"[]", b"[1]", b'"text"', b"7", b"null", b"true", b"NaN",
            b"{} {}", b"\xff\xfe", b'{"waiting_for": 5}', b'{"waiting_for": null}',
            b'{"waiting_for": true}', b'{"epoch": ' + b"9" * 30_000 + b"}", b'{"limit": 1e999}',
            b'{"setting": "\\ud800"}', b'{"self": 1, "message": 2, "args": 3}',
        ):  # fmt: skip
            for cls in CLASSES:
                error = read_failure(cls.code.encode(), b"the message\n" + typed)
                self.assertIs(type(error), cls)
                self.assertEqual(str(error), "the message")

    def test_details_of_another_type(self) -> None:
        """A peer that names no leader where a name is due does not fail whoever asked: the outcome
        is still that nothing was done."""
        wrong: tuple[Any, ...] = (None, 5, True, ["node-1"], {})
        for leader in wrong:
            description = b"not here\n" + json.dumps({"leader": leader, "epoch": 3}).encode()
            error = read_failure(b"NOT_LEADER", description)
            assert isinstance(error, NotLeader)
            self.assertEqual((str(error), error.leader, error.epoch), ("not here", "", 0))
        epoch = read_failure(b"NOT_LEADER", b'not here\n{"leader":"node-1","epoch":true}')
        self.assertEqual(epoch.details(), {"leader": "", "epoch": 0})

    def test_deeply_nested_details(self) -> None:
        """Else a hostile peer stops a client: an error in reading errors is nobody's answer."""
        for typed in (b"[" * 60_000, b'{"waiting_for":' * 4000, b'{"reason":[' * 5000):
            for cls in CLASSES:
                error = read_failure(cls.code.encode(), b"the message\n" + typed)
                self.assertIs(type(error), cls)
                self.assertEqual(str(error), "the message")

    def test_details_of_a_later_release(self) -> None:
        """Else a release cannot add a detail without breaking the one before."""
        error = read_failure(b"NOT_LEADER", b'm\n{"leader":"node-2","epoch":3,"since":4}')
        self.assertEqual(described(error), (NotLeader, "m", {"leader": "node-2", "epoch": 3}))
        error = read_failure(b"NOT_LEADER", b'm\n{"leader":"node-2"}')
        self.assertEqual(described(error), (NotLeader, "m", {"leader": "node-2", "epoch": 0}))

    def test_stock_errors(self) -> None:
        """Else errors of a stock AMP server, which have no details, are not understood."""
        error = read_failure(b"UNAVAILABLE", b"gone fishing")
        self.assertEqual(described(error), (Unavailable, "gone fishing", {"waiting_for": ()}))
        error = read_failure(b"UNHANDLED", b"Unhandled Command: b'Put'")
        self.assertEqual(described(error), (UnknownCommand, "Unhandled Command: b'Put'", {}))

    @examples(100)
    @given(st.binary(max_size=20) | codes, st.binary(max_size=200))
    def test_random_bytes(self, code: bytes, description: bytes) -> None:
        """Else garbage from a peer ends in a call that never does."""
        error = read_failure(code, description)
        self.assertIsInstance(error, KvtwistError)
        self.assertTrue(crosses_the_wire(error))

    @examples(80)
    @given(st.binary(max_size=60) | codes)
    def test_random_bytes_for_a_packed_error(self, packed: bytes) -> None:
        """Else one damaged error among many fails all the keys of the request."""
        self.assertTrue(crosses_the_wire(unpack_failure(packed)))

    @examples(100)
    @given(codes, texts, any_json)
    def test_random_json(self, code: bytes, text: str, said: Any) -> None:
        """The same, for what can be read but makes no sense; the error stays what it is."""
        typed = json.dumps(said).encode()
        error = read_failure(code, text.encode() + b"\n" + typed)
        self.assertEqual(type(error).code.encode(), code)
        self.assertEqual(str(error), text)
