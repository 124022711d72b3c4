"""The commands: documented, consistent, and usable with nothing but Twisted's AMP.

The rules are functions from a command to what breaks them, so that they are tested too.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any, ClassVar

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.founding import View
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import KvtwistError, Refused
from kvtwist.wire import boxes, commands, failures
from kvtwist.wire.arguments import Blob, Int64, Natural
from kvtwist.wire.commands import COMMANDS, WRITES

CHECKOUT = Path(__file__).resolve().parents[2]

Pairs = list[tuple[bytes, amp.Argument]]
Command = type[amp.Command]

COMMON = {"trace": Blob, "keyspace": Natural}
DATA = COMMON | {"timeout_ms": Natural, "forwarded": amp.Boolean}
ON_DATA = {
    commands.Get,
    commands.Put,
    commands.Delete,
    commands.CompareAndSet,
    commands.Increment,
    commands.OpenSession,
    commands.GetMany,
    commands.PutMany,
}

# What the user's own data are called, and attributes that the core's values describe.
KNOWN_ELSEWHERE = {
    "key",
    "keys",
    "value",
    "values",
    *Member.__dataclass_fields__,
    *Settings.__dataclass_fields__,
    *Topology.__slots__,
    *View.__dataclass_fields__,
}

# What `amp.Command`'s metaclass and Python put into every command.
GIVEN = {"allErrors", "commandName", "reverseErrors"}

NAME_BYTES_MAX = boxes.KEY_BYTES_MAX - len(".99999")


def names(pairs: Pairs) -> list[str]:
    """The names of arguments."""
    return [name.decode() for name, _ in pairs]


def marked(pairs: Pairs) -> list[str]:
    """The names of arguments, the optional ones with a question mark."""
    return [f"{name.decode()}{'?' if kind.optional else ''}" for name, kind in pairs]


def unknown_attributes(command: Command) -> Iterator[str]:
    """What the command says that AMP does not know, and so passes over without a word."""
    said = {*vars(command), *vars(command).get("__annotations__", {})}
    for name in sorted(said):
        if not (name.startswith("__") or name in GIVEN or hasattr(amp.Command, name)):
            yield f"AMP knows no {name}"


def unexplained(command: Command) -> Iterator[str]:
    """What somebody who writes a client of their own would have to ask about."""
    doc = cleandoc(command.__doc__ or "")
    if not doc:
        yield "no docstring"
        return
    own = {*names(command.arguments), *names(command.response)} - set(DATA)
    if len(own) > 3 and "\n" not in doc:
        yield "one line for all that"
    explained = KNOWN_ELSEWHERE | set(re.findall(r"\w+", doc)) | explained_once()
    for name in names(command.arguments) + names(command.response):
        if name not in explained:
            yield f"{name} is not explained"


def explained_once() -> set[str]:
    """The names that the module or some command explains: one name means one thing everywhere."""
    docs = [commands.__doc__, *(command.__doc__ for command in COMMANDS)]
    return {name for doc in docs for name in re.findall(r"``(\w+)``", doc or "")}


def unusable_names(command: Command) -> Iterator[str]:
    """Names that collide with the envelope, with the pieces of long values, or with Python."""
    for pairs in (command.arguments, command.response):
        for name in names(pairs):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
                yield f"{name!r} is no name for an argument"
            if amp._wireNameToPythonIdentifier(name.encode()) != name:
                yield f"stock AMP calls {name} otherwise"
            if len(name) > NAME_BYTES_MAX:
                yield f"{name} leaves no room for the numbers of pieces"
            if names(pairs).count(name) > 1:
                yield f"{name} stands twice"


def wrong_codes(command: Command) -> Iterator[str]:
    """Errors that would arrive as something else."""
    for error, code in command.errors.items():
        own: Any = vars(error).get("code")
        if not own or own.encode() != code:
            yield f"{error.__name__} has another code than {code!r}"
        if error not in failures.CLASSES:
            yield f"{error.__name__} cannot be read from the wire"
    if command.fatalErrors:
        yield "stock AMP would hang up"


def problems(command: Command) -> list[str]:
    """Everything that is wrong with a command."""
    rules = (unknown_attributes, unexplained, unusable_names, wrong_codes)
    return [what for rule in rules for what in rule(command)]


class CommandTests(SynchronousTestCase):
    """Each command there is."""

    def test_no_problems(self) -> None:
        """Else a command is not what it seems to say: the rules are tested below."""
        found = {command.__name__: problems(command) for command in COMMANDS}
        self.assertEqual({name: what for name, what in found.items() if what}, {})

    def test_all_are_listed(self) -> None:
        """Else a command is in the protocol that neither documents nor tests know of."""
        defined = [
            thing
            for thing in vars(commands).values()
            if isinstance(thing, type) and issubclass(thing, amp.Command)
        ]
        self.assertEqual(list(COMMANDS), defined)
        self.assertEqual(len({command.commandName for command in COMMANDS}), len(COMMANDS))
        for command in COMMANDS:
            self.assertEqual(command.commandName.decode(), command.__name__)

    def test_names_do_not_change(self) -> None:
        """Else nodes of two releases, and programs that people wrote, no longer understand each
        other: whoever changes this list changes the protocol."""
        self.assertEqual(
            {command.__name__: names(command.arguments)[: -len(COMMON)] for command in COMMANDS}
            | {command.__name__: names(command.arguments)[: -len(DATA)] for command in ON_DATA}
            | {"Hello": names(commands.Hello.arguments)[len(COMMON) :]},
            {
                "Hello": [
                    "version_min", "version_max", "cluster_id", "name", "identity", "address",
                    "expected_identity", "started_ms", "features", "auth",
                ],
                "Ping": [],
                "Fragment": ["number", "last", "piece"],
                "Found": [],
                "DescribeTopology": [],
                "Status": [],
                "DescribeReplicas": ["first", "count"],
                "Get": ["key"],
                "Put": ["key", "value", "once"],
                "Delete": ["key", "version", "once"],
                "CompareAndSet": ["key", "value", "version", "once"],
                "Increment": ["key", "delta", "once"],
                "OpenSession": ["key", "idle_ms"],
                "GetMany": ["keys"],
                "PutMany": ["keys", "values", "onces"],
                "OpenBackup": ["partition"],
                "ReadBackup": ["backup", "number"],
                "CloseBackup": ["backup"],
                "RaftMessages": ["cluster", "messages", "willing"],
                "OfferSnapshot": [
                    "group", "sender", "to", "term", "index", "snapshot_term", "configuration",
                ],
                "SnapshotPiece": ["transfer", "number", "piece", "last"],
            },
        )  # fmt: skip

    def test_answers_do_not_change(self) -> None:
        """The same, for answers; what may be missing has a question mark."""
        member = ["name", "identity", "address"]
        settings = ["partitions", "replicas", "tokens_per_member", "durable"]
        seen = ["done", "version", "value?", "applied?", "leader?"]
        self.assertEqual(
            {command.__name__: marked(command.response) for command in COMMANDS},
            {
                "Hello": names(commands.Hello.arguments)[len(COMMON) :],
                "Ping": [],
                "Fragment": [],
                "Found": [
                    *member, *settings, "founders", "cluster_id", "founded", "members", "restored?",
                ],
                "DescribeTopology": [
                    "cluster_id", "epoch", *settings, "members", "placement",
                    "leaders?",
                ],
                "Status": [
                    *member, "software", "uptime_ms", "cluster_id", "epoch", "key_count", "owned",
                    "waiting_for", "unreachable", "leads?", "held?", "condition?", "trouble?",
                ],
                "DescribeReplicas": [
                    "following", "groups", "group_partitions", "replica_ids", "roles", "terms",
                    "leader_ids", "commit_indexes", "applied_indexes", "last_indexes",
                    "compacted_indexes", "replica_flags", "key_counts", "byte_counts",
                    "other_rows", "other_ids", "other_members", "other_flags", "match_indexes",
                    "sendings", "snapshot_indexes",
                ],
                "Get": ["version", "value?", "applied?", "leader?"],
                "Put": ["version", "applied?", "leader?"],
                "Delete": seen,
                "CompareAndSet": seen,
                "Increment": ["version", "total", "applied?", "leader?"],
                "OpenSession": ["session", "generation", "applied?", "leader?"],
                "GetMany": ["versions", "values", "errors?", "applied?"],
                "PutMany": ["versions", "errors?", "applied?"],
                "OpenBackup": ["backup", "applied_index", "key_count", "data_bytes"],
                "ReadBackup": ["piece", "last"],
                "CloseBackup": [],
                "RaftMessages": [],
                "OfferSnapshot": ["transfer"],
                "SnapshotPiece": [],
            },
        )  # fmt: skip

    def test_shared_arguments(self) -> None:
        """Else a command cannot be traced, cannot be given a keyspace one day, or ignores its
        time limit; and a stock client that leaves them out is refused."""
        for command in COMMANDS:
            arguments = dict(command.arguments)
            for name, kind in (DATA if command in ON_DATA else COMMON).items():
                self.assertIsInstance(arguments[name.encode()], kind, command.__name__)
                self.assertTrue(arguments[name.encode()].optional, command.__name__)

    def test_what_a_stock_client_has_to_say(self) -> None:
        """Else the ten-line program becomes a twenty-line program."""
        needed = {
            command: [name.decode() for name, kind in command.arguments if not kind.optional]
            for command in COMMANDS
        }
        self.assertEqual(needed[commands.Get], ["key"])
        self.assertEqual(needed[commands.Put], ["key", "value"])
        self.assertEqual(needed[commands.Delete], ["key"])
        self.assertEqual(needed[commands.CompareAndSet], ["key", "value", "version"])
        self.assertEqual(needed[commands.Increment], ["key", "delta"])
        self.assertEqual(needed[commands.OpenSession], ["key", "idle_ms"])
        self.assertEqual(needed[commands.GetMany], ["keys"])
        self.assertEqual(needed[commands.PutMany], ["keys", "values"])
        for command in (
            commands.Ping, commands.Found, commands.DescribeTopology, commands.Status,
        ):  # fmt: skip
            self.assertEqual(needed[command], [])

    def test_one_name_one_type(self) -> None:
        """Else ``version`` is a number in one command and something else in the next."""
        kinds: dict[str, set[type]] = {}
        for command in COMMANDS:
            for name, kind in (*command.arguments, *command.response):
                kinds.setdefault(name.decode(), set()).add(type(kind))
        self.assertEqual({name: kind for name, kind in kinds.items() if len(kind) > 1}, {})

    def test_numbers_and_bytes_are_bounded(self) -> None:
        """T4: ``amp.Integer`` reads 60,000 digits. T6: ``amp.Descriptor`` and the like let a peer
        into the process. ``amp.String`` breaks on a long key."""
        harmless = (Natural, Int64, Blob, amp.Boolean, amp.Unicode, amp.ListOf, amp.AmpList)
        for command in COMMANDS:
            for name, kind in (*command.arguments, *command.response):
                self.assertIsInstance(kind, harmless, f"{command.__name__}: {name!r}")
                if isinstance(kind, amp.ListOf):
                    self.assertIsInstance(kind.elementType, amp.Unicode)

    def test_nothing_special(self) -> None:
        """T6: else a command switches the protocol, or changes how the answer is sent."""
        for command in COMMANDS:
            self.assertEqual(command.__bases__, (amp.Command,))
            self.assertIs(command.commandType, amp.Box)
            self.assertIs(command.responseType, amp.Box)
            unanswered = (commands.Fragment, commands.RaftMessages)
            self.assertEqual(command.requiresAnswer, command not in unanswered)

    def test_common_errors(self) -> None:
        """Else a stock client is told ``UnknownRemoteError``, and cannot tell a request that it
        must not send again from one that it may."""
        needed = {b"MALFORMED", b"TOO_LARGE", b"REFUSED", b"OVERLOADED", b"NODE_FAULT"}
        for command in COMMANDS:
            codes = set(command.errors.values())
            self.assertLessEqual(needed if command.requiresAnswer else set(), codes)
        for command in ON_DATA:
            codes = set(command.errors.values())
            self.assertLessEqual({b"UNAVAILABLE", b"NOT_LEADER", b"OUTCOME_UNKNOWN"}, codes)
        for write in WRITES | {commands.OpenSession}:
            codes = set(write.errors.values())
            self.assertLessEqual({b"SESSION_REFUSED", b"WRONG_GENERATION"}, codes)

    def test_codes_are_unique(self) -> None:
        """Else "not carried out" is read as "may have been", or the other way round."""
        found = [cls.__dict__["code"] for cls in {*every_error()} if cls.__dict__.get("code")]
        self.assertEqual(sorted(found), sorted(set(found)))
        self.assertEqual(sorted(found), sorted(cls.code for cls in failures.CLASSES))

    def test_codes_do_not_change(self) -> None:
        """Else programs that people wrote no longer know the errors that they are sent."""
        self.assertEqual(
            {cls.__name__: cls.code for cls in failures.CLASSES},
            {
                "DiskFull": "DISK_FULL",
                "HelloRefused": "HELLO_REFUSED",
                "MalformedRequest": "MALFORMED",
                "NodeFault": "NODE_FAULT",
                "NotANumber": "NOT_A_NUMBER",
                "NotLeader": "NOT_LEADER",
                "OutOfRange": "OUT_OF_RANGE",
                "OutcomeUnknown": "OUTCOME_UNKNOWN",
                "Overloaded": "OVERLOADED",
                "Refused": "REFUSED",
                "SessionRefused": "SESSION_REFUSED",
                "TooLarge": "TOO_LARGE",
                "Unavailable": "UNAVAILABLE",
                "UnknownCommand": amp.UNHANDLED_ERROR_CODE.decode(),
                "WrongGeneration": "WRONG_GENERATION",
            },
        )

    def test_writes(self) -> None:
        """Else a write that may have been done is sent again, or a read is not."""
        self.assertEqual(
            WRITES,
            {
                commands.Put,
                commands.Delete,
                commands.CompareAndSet,
                commands.Increment,
                commands.PutMany,
            },
        )
        self.assertLess(WRITES, set(COMMANDS))
        can_be_named = {
            command for command in COMMANDS if {"once", "onces"} & {*names(command.arguments)}
        }
        self.assertEqual(can_be_named, WRITES)

    def test_imports_are_light(self) -> None:
        """Else a program that only wants the command classes gets a reactor installed behind its
        back, or all of a node."""
        program = (
            "import sys\n"
            "import kvtwist.wire.commands\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
            "for name in sys.modules:\n"
            "    above = ('node', 'client', 'cli', 'service', 'tap')\n"
            "    assert not name.startswith(tuple('kvtwist.' + part for part in above)), name\n"
            "    assert name != 'click', name\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


def every_error(root: type[KvtwistError] = KvtwistError) -> Iterator[type[KvtwistError]]:
    """The whole hierarchy of `kvtwist.errors`."""
    yield root
    for cls in root.__subclasses__():
        if cls.__module__ == "kvtwist.errors":
            yield from every_error(cls)


class RuleTests(SynchronousTestCase):
    """The rules find what they are for: one that finds nothing would let everything pass."""

    def test_misspelt(self) -> None:
        """Else ``reponse = []`` makes a command whose answer is always empty, and nobody knows."""

        class Misspelt(amp.Command):
            """Say."""

            reponse: ClassVar[Pairs] = [(b"version", Natural())]

        class Announced(amp.Command):
            """Say."""

            argument: ClassVar[Pairs]

        class Fine(amp.Command):
            """Say."""

            arguments: ClassVar[Pairs] = []
            response: ClassVar[Pairs] = []
            errors: ClassVar[dict[type[Exception], bytes]] = {}
            fatalErrors: ClassVar[dict[type[Exception], bytes]] = {}  # noqa: N815
            commandName = b"Well"
            requiresAnswer = True

        self.assertEqual(list(unknown_attributes(Misspelt)), ["AMP knows no reponse"])
        self.assertEqual(list(unknown_attributes(Announced)), ["AMP knows no argument"])
        self.assertEqual(list(unknown_attributes(Fine)), [])

    def test_unexplained(self) -> None:
        """Else the protocol's documentation is not one."""

        class Silent(amp.Command):
            pass

        class Terse(amp.Command):
            """Do it."""

            arguments: ClassVar[Pairs] = [(b"key", Blob()), (b"trace", Blob())]
            response: ClassVar[Pairs] = [(b"depth", Natural())]

        class Long(amp.Command):
            """Take a, b, c and d."""

            arguments: ClassVar[Pairs] = [(name, Blob()) for name in (b"a", b"b", b"c", b"d")]

        class Fine(amp.Command):
            """Say how deep it is: ``depth``."""

            arguments: ClassVar[Pairs] = [(b"key", Blob()), (b"trace", Blob())]
            response: ClassVar[Pairs] = [(b"depth", Natural())]

        Silent.__doc__ = None
        self.assertEqual(list(unexplained(Silent)), ["no docstring"])
        self.assertEqual(list(unexplained(Terse)), ["depth is not explained"])
        self.assertEqual(list(unexplained(Long)), ["one line for all that"])
        self.assertEqual(list(unexplained(Fine)), [])

    def test_unusable_names(self) -> None:
        """Else a long value overwrites another argument, or the box's own address."""

        class Bad(amp.Command):
            """Say."""

            arguments: ClassVar[Pairs] = [
                (b"value.2", Blob()),
                (b"_ask", Blob()),
                (b"from", Blob()),
                (b"a" * 250, Blob()),
            ]
            response: ClassVar[Pairs] = [(b"key", Blob()), (b"key", Blob()), (b"value", Blob())]

        self.assertEqual(
            list(unusable_names(Bad)),
            [
                "'value.2' is no name for an argument",
                "'_ask' is no name for an argument",
                "'from' is no name for an argument",
                "stock AMP calls from otherwise",
                "a" * 250 + " leaves no room for the numbers of pieces",
                "key stands twice",
                "key stands twice",
            ],
        )

    def test_wrong_codes(self) -> None:
        """Else a declared error arrives as another, or as none."""

        class Local(KvtwistError):
            """Has no code."""

        class Bad(amp.Command):
            """Say."""

            errors: ClassVar[dict[type[Exception], bytes]] = {
                Refused: b"NO",
                Local: b"LOCAL",
            }
            fatalErrors: ClassVar[dict[type[Exception], bytes]] = {  # noqa: N815
                ValueError: b"VALUE"
            }

        self.assertEqual(
            list(wrong_codes(Bad)),
            [
                "Refused has another code than b'NO'",
                "Local has another code than b'LOCAL'",
                "Local cannot be read from the wire",
                "stock AMP would hang up",
            ],
        )
