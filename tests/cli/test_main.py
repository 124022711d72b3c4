"""``kvcli`` as a shell sees it: arguments, help, exit codes."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest import mock

import click
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist import errors, software
from kvtwist.cli import local, run
from kvtwist.cli.main import EXIT_CODES, Session, cli, main
from kvtwist.cli.run import exit_code_of, in_words
from kvtwist.cli.show import Printer
from kvtwist.client import Client, Counted
from kvtwist.errors import KvtwistError
from kvtwist.node.limits import Limits
from tests.cli.test_show import Console
from tests.cluster import CLIENT_IP, SimulatedCluster

CHECKOUT = Path(__file__).resolve().parents[2]

Work = Callable[[Client, Printer], Coroutine[Any, Any, int]]

CODES = {
    errors.ConfigurationError: 2,
    errors.HelloRefused: 3,
    errors.StoreLocked: 2,
    errors.NotDone: 3,
    errors.DiskFull: 3,
    errors.Unavailable: 3,
    errors.NotSent: 3,
    errors.Overloaded: 3,
    errors.NotLeader: 3,
    errors.VersionMismatch: 1,
    errors.SessionRefused: 3,
    errors.WrongGeneration: 3,
    errors.NotANumber: 4,
    errors.OutOfRange: 4,
    errors.Refused: 4,
    errors.TooLarge: 4,
    errors.MalformedRequest: 4,
    errors.UnknownCommand: 4,
    errors.OutcomeUnknown: 5,
    errors.NoAnswer: 5,
    errors.NodeFault: 5,
}

OF_NO_KIND = {
    errors.KvtwistError,
    errors.ManyFailed,
    errors.StorageError,
    errors.StoreDamaged,
    errors.StoreFailed,
}
"""Those that do not say whether anything was done, or that no client is told."""

COMPLETE = {
    "put": ["k", "v"],
    "get": ["k"],
    "delete": ["k"],
    "cas": ["k", "v", "1"],
    "incr": ["k"],
    "where": ["k"],
    "status": [],
    "ring": [],
}
"""The commands that talk to a cluster, with the fewest arguments that they take."""

SAYING = {
    "put": ["Write VALUE under KEY", "standard input"],
    "get": ["Print the value of KEY", "exit with 1", "--raw"],
    "delete": ["Remove KEY", "exit with 1", "--version"],
    "cas": ["only if KEY is at VERSION", "exits with 1", "does not exist"],
    "incr": ["Add to the number under KEY", "counts as 0", "exits with 4", "--by"],
    "where": ["where KEY lives", "partition", "owner", "tag", "quorum", "LAG"],
    "status": [
        "members",
        "LAG",
        "even if a member is down",
        "with 3 if one is not",
        "--partitions",
    ],
    "ring": ["Draw the ring"],
    "bench": ["Measure the rate", "OVERWRITTEN", "Exits with 0", "--in-flight"],
    "backup": ["Write all data", "at one moment", "differ", "--force", "Exits with 3"],
    "restore": ["new node's data directory", "once for each founder", "same FILE", "Exits with 1"],
    "check": ["Verify all", "data directory", "Exits with 0", "3 if a running node"],
    "local": ["Start a cluster of N nodes", "memory only", "Ctrl-C", "--port"],
}


class CommandLineTestCase(SynchronousTestCase):
    """Runs `main` as the console script does."""

    def kvcli(
        self, *arguments: str, stdin: bytes = b"", environ: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """The exit code, standard output and standard error of one call."""
        console = Console(self)
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self.patch(sys, "argv", ["kvcli", *arguments])
        without = {key: value for key, value in os.environ.items() if key != "KVTWIST_PEERS"}
        with mock.patch.dict(os.environ, without | (environ or {}), clear=True):
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code
            else:
                code = 0
        assert isinstance(code, int), code
        return code, console.out, console.err

    def assert_usage_error(self, *arguments: str, says: str) -> None:
        """Exit code 2, and one line on standard error that has *says*."""
        code, out, err = self.kvcli(*arguments)
        self.assertEqual((code, out), (2, ""), arguments)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("kvcli: "), err)
        self.assertIn(says, err)


class HelpTests(CommandLineTestCase):
    """``--help`` and ``--version``."""

    def test_every_command_is_described(self) -> None:
        """A command without a description would be found by nobody."""
        self.assertEqual(set(SAYING), set(cli.commands))
        for option in ("--help", "-h"):
            code, out, err = self.kvcli(option)
            self.assertEqual((code, err), (0, ""))
            for name in cli.commands:
                self.assertRegex(out, rf"(?m)^  {name} +[A-Z]\w+ ")

    def test_exit_codes_are_described(self) -> None:
        """C1: a script's author could not tell "not done" from "perhaps done"."""
        _, out, _ = self.kvcli("--help")
        for code in range(6):
            self.assertRegex(out, rf"(?m)^ +{code}  \w")
        self.assertEqual(EXIT_CODES.count("unknown"), 1)
        self.assertRegex(out, "5  the outcome of a write is unknown")
        self.assertRegex(out, "3  unavailable; definitely not done")

    def test_options_are_described(self) -> None:
        """One would not learn how to say where the cluster is."""
        _, out, _ = self.kvcli("--help")
        for part in ("--peers", "KVTWIST_PEERS", ":8001", "--timeout", "--json"):
            self.assertIn(part, out)

    def test_each_command(self) -> None:
        """One would have to try a command out to learn what it does."""
        for name, parts in SAYING.items():
            code, out, err = self.kvcli(name, "--help")
            self.assertEqual((code, err), (0, ""))
            self.assertIn(f"Usage: kvcli {name} ", out)
            for part in parts:
                self.assertIn(part, " ".join(out.split()), name)

    def test_help_fits_a_terminal(self) -> None:
        """Help would be wrapped a second time, in the middle of words."""
        for arguments in ([], *([name] for name in SAYING)):
            _, out, _ = self.kvcli(*arguments, "--help")
            self.assertLessEqual(max(map(len, out.splitlines())), 100, arguments)

    def test_nothing_given(self) -> None:
        """Who types just ``kvcli`` would get the help as an error message."""
        _, help_text, _ = self.kvcli("--help")
        code, out, err = self.kvcli()
        self.assertIn(code, (0, 2))
        self.assertEqual((out + err).strip(), help_text.strip())

    def test_version(self) -> None:
        """A report of a bug could not say which release it is about."""
        self.assertEqual(self.kvcli("--version"), (0, f"kvcli, version {software()}\n", ""))

    def test_help_imports_little(self) -> None:
        """Help and shell completion would take as long as a request: Twisted is not needed for
        them, nor is what only nodes are made of."""
        program = (
            "import sys\n"
            "from kvtwist.cli.main import main\n"
            f"for arguments in (['--help'], *([name, '--help'] for name in {list(SAYING)!r})):\n"
            "    sys.argv[1:] = arguments\n"
            "    main()\n"
            "needless = ('twisted', 'kvtwist.core.raft')\n"
            "loaded = sorted(name for name in sys.modules if name.startswith(needless))\n"
            "assert not loaded, loaded\n"
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


class UsageTests(CommandLineTestCase):
    """Mistakes on the command line."""

    def setUp(self) -> None:
        """Let no command reach a reactor."""
        self.patch(Session, "run", self.fail)
        self.patch(local, "run_local", self.fail)

    def test_unknown_command(self) -> None:
        """A typing error would be a traceback or a page of help."""
        self.assert_usage_error("gte", "k", says="gte")

    def test_unknown_option(self) -> None:
        """A misspelt option would be taken for a key, or be ignored."""
        self.assert_usage_error("--pers=:1", "get", "k", says="--pers")
        for name, arguments in COMPLETE.items():
            self.assert_usage_error(name, "--nope", *arguments, says="--nope")

    def test_missing_argument(self) -> None:
        """A script with an empty variable would write something else than it means to."""
        for name, arguments in COMPLETE.items():
            for count in range(len(arguments)):
                self.assert_usage_error(name, *arguments[:count], says="Missing argument")

    def test_one_argument_too_many(self) -> None:
        """A value with an unquoted space would be stored in part."""
        for name, arguments in COMPLETE.items():
            self.assert_usage_error(name, *arguments, "more", says="more")

    def test_settings_of_a_local_cluster(self) -> None:
        """Every node would say the same, one after the other, and none would start."""
        self.assert_usage_error("local", "--partitions=3", says="power of two")
        self.assert_usage_error("local", "--replicas=99", says="1 to 64")

    def test_says_where_help_is(self) -> None:
        """One would not learn how to do it right."""
        self.assert_usage_error("put", "k", says="(see kvcli put --help)")
        self.assert_usage_error("nope", says="(see kvcli --help)")

    def test_versions(self) -> None:
        """A condition that cannot be meant would be sent to the cluster."""
        for version in ("-1", "x", "1.5", ""):
            self.assert_usage_error("cas", "--", "k", "v", version, says="VERSION")
        for version in ("0", "-1", "x"):
            self.assert_usage_error("delete", "k", f"--version={version}", says="--version")

    def test_timeouts(self) -> None:
        """A request would be given no time, or all the time there is."""
        for seconds in ("0", "-1", "x", "nan"):
            self.assert_usage_error(f"--timeout={seconds}", "get", "k", says="--timeout")

    def test_local(self) -> None:
        """A cluster would be started in part, and then fail on a port that does not exist."""
        self.assert_usage_error("local", "0", says="0")
        self.assert_usage_error("local", "65", says="65")
        self.assert_usage_error("local", "x", says="x")
        self.assert_usage_error("local", "--port=0", says="--port")
        self.assert_usage_error("local", "--port=65536", says="--port")
        self.assert_usage_error("local", "3", "--port=65534", says="65534")


class PassedOnTests(CommandLineTestCase):
    """What the command line says, as it reaches the work."""

    def session_of(self, *arguments: str, peers: str | None = None) -> Session:
        """The session that a command ran with, in an environment with *peers*."""
        sessions: list[Session] = []
        self.patch(Session, "run", lambda session, _: sessions.append(session))
        environ = {} if peers is None else {"KVTWIST_PEERS": peers}
        self.assertEqual(self.kvcli(*arguments, environ=environ), (0, "", ""))
        (session,) = sessions
        return session

    def calls_of(self, *arguments: str, stdin: bytes = b"") -> mock.Mock:
        """The client that a command was run with; every method says 7."""
        client = mock.Mock()
        for method in ("put", "get", "delete", "compare_and_set"):
            getattr(client, method).side_effect = _seven
        client.increment.side_effect = _counted

        def run_it(session: Session, work: Work) -> None:
            with self.assertRaises(StopIteration):
                work(client, Printer(as_json=True)).send(None)

        self.patch(Session, "run", run_it)
        code, _, err = self.kvcli(*arguments, stdin=stdin)
        self.assertEqual((code, err), (0, ""))
        return client

    def test_defaults(self) -> None:
        """The quick start would need more to be typed than the documentation says."""
        session = self.session_of("get", "k")
        self.assertEqual((session.peers, session.timeout_seconds), (":8001", 5.0))
        self.assertFalse(session.printer.as_json)

    def test_options(self) -> None:
        """An option would be taken, and do nothing."""
        session = self.session_of("--peers=:1,:2", "--timeout=0.5", "--json", "get", "k")
        self.assertEqual((session.peers, session.timeout_seconds), (":1,:2", 0.5))
        self.assertTrue(session.printer.as_json)

    def test_environment(self) -> None:
        """Every command in a shell would have to name the cluster."""
        for name, arguments in COMPLETE.items():
            session = self.session_of(name, *arguments, peers=":4,:5")
            self.assertEqual(session.peers, ":4,:5")

    def test_option_over_environment(self) -> None:
        """One command for another cluster would go to the usual one."""
        session = self.session_of("--peers=:6", "get", "k", peers=":4,:5")
        self.assertEqual(session.peers, ":6")

    def test_empty_environment(self) -> None:
        """``KVTWIST_PEERS=`` would not mean the default, as with other programs."""
        self.assertEqual(self.session_of("get", "k", peers="").peers, ":8001")

    def test_json_behind_the_command(self) -> None:
        """``kvcli get k --json``, as people type it, would be an error."""
        for name, arguments in COMPLETE.items():
            self.assertTrue(self.session_of(name, *arguments, "--json").printer.as_json)
            self.assertFalse(self.session_of(name, *arguments).printer.as_json)

    def test_bytes_of_arguments(self) -> None:
        """A key that is not UTF-8 could not be typed, or would become another key."""
        client = self.calls_of("put", os.fsdecode(b"\xff\x80"), "caf\u00e9")
        client.put.assert_called_once_with(b"\xff\x80", "caf\u00e9".encode())

    def test_empty_arguments(self) -> None:
        """An empty value could not be written."""
        self.calls_of("put", "k", "").put.assert_called_once_with(b"k", b"")

    def test_value_from_standard_input(self) -> None:
        """A file could not be stored, or not as it is."""
        data = b"\x00\xff\r\n-"
        self.calls_of("put", "k", "-", stdin=data).put.assert_called_once_with(b"k", data)
        client = self.calls_of("cas", "k", "-", "3", stdin=data)
        client.compare_and_set.assert_called_once_with(b"k", data, 3)

    def test_key_is_never_standard_input(self) -> None:
        """The key ``-`` would be another one each time."""
        self.calls_of("put", "-", "v", stdin=b"x").put.assert_called_once_with(b"-", b"v")

    def test_dashes(self) -> None:
        """A value such as -1 could not be written."""
        self.calls_of("put", "--", "-k", "-1").put.assert_called_once_with(b"-k", b"-1")

    def test_versions(self) -> None:
        """A condition would be left out, or be another one."""
        client = self.calls_of("cas", "k", "v", "0")
        client.compare_and_set.assert_called_once_with(b"k", b"v", 0)
        client = self.calls_of("cas", "k", "v", str((1 << 63) - 1))
        client.compare_and_set.assert_called_once_with(b"k", b"v", (1 << 63) - 1)
        client = self.calls_of("delete", "k", "--version=9")
        client.delete.assert_called_once_with(b"k", version=9)
        self.calls_of("delete", "k").delete.assert_called_once_with(b"k", version=None)

    def test_increments(self) -> None:
        """Something else would be added than was asked for, or what no counter can take."""
        for arguments, delta in (
            ((), 1),
            (("--by", "-3"), -3),
            ((f"--by={-(1 << 63)}",), -(1 << 63)),
            ((f"--by={(1 << 63) - 1}",), (1 << 63) - 1),
        ):
            client = self.calls_of("incr", "k", *arguments)
            client.increment.assert_called_once_with(b"k", delta)
        for wrong in ("1.5", "x", "", str(1 << 63)):
            self.assert_usage_error("incr", "k", f"--by={wrong}", says="--by")

    def test_local(self) -> None:
        """``kvcli local`` would start another cluster than the one asked for."""
        run_local = mock.Mock()
        self.patch(local, "run_local", run_local)
        self.assertEqual(self.kvcli("local"), (0, "", ""))
        options = ("--port=65531", "--memory", "--verbose", "--replicas=5", "--partitions=16")
        self.assertEqual(self.kvcli("local", "5", *options), (0, "", ""))
        said = ["--replicas=5", "--partitions=16", "--memory"]
        expected = [mock.call(3, 8001, [], False), mock.call(5, 65531, said, True)]
        self.assertEqual(run_local.mock_calls, expected)

    def test_interrupted(self) -> None:
        """Ctrl-C would be a traceback, and look like an answer to a script."""
        for error in (KeyboardInterrupt(), click.Abort()):
            self.patch(Session, "run", mock.Mock(side_effect=error))
            code, out, err = self.kvcli("get", "k")
            self.assertEqual((code, out, err.strip()), (130, "", ""))


async def _counted(*_: object) -> Counted:
    return Counted(version=7, number=7)


async def _seven(*_: object, **__: object) -> int:
    return 7


class ExitCodeTests(CommandLineTestCase):
    """The code that tells a script what became of its request."""

    def test_every_exception(self) -> None:
        """C1: a script would take "perhaps done" for "not done", and do it twice."""
        every = {
            kind
            for _, kind in inspect.getmembers(errors, inspect.isclass)
            if issubclass(kind, KvtwistError)
        }
        self.assertEqual(set(CODES) | OF_NO_KIND, every)
        for kind, code in CODES.items():
            self.assertEqual(exit_code_of(kind("why")), code, kind.__name__)

    def test_exceptions_to_come(self) -> None:
        """A new kind of error would get the code of something else than what it is a kind of."""

        class Newer(errors.Refused):
            pass

        self.assertEqual(exit_code_of(Newer()), 4)

    def test_only_certain_failures_are_called_not_done(self) -> None:
        """C1: a failure of which nothing is known would be called "definitely not done"."""

        class Unclassified(KvtwistError):
            pass

        for kind in (*OF_NO_KIND, Unclassified):
            self.assertEqual(exit_code_of(kind()), 5, kind.__name__)


class RunTests(CommandLineTestCase):
    """The whole command, in a simulated network in the reactor's place."""

    def setUp(self) -> None:
        """Found a cluster."""
        self.cluster = SimulatedCluster(3, limits=Limits(key_bytes_max=9, value_bytes_max=20))
        self.cluster.found()
        self.patch(run, "make_monotonic", lambda _: None)
        self.patch(task, "react", self.react)

    def react(self, begin: Callable[[Any], Deferred[Any]]) -> None:
        """What `twisted.internet.task.react` does, here."""
        network = self.cluster.network
        network.result_of(begin(network.host(CLIENT_IP)))
        self.fail("the command ended without an exit code")

    def run_at(self, number: int, *arguments: str) -> tuple[int, str, str]:
        """Run one command with node-*number* as the only peer that is known."""
        return self.kvcli(f"--peers=10.0.0.{number}:8001", *arguments)

    def test_done(self) -> None:
        """A value would not be found again, through whichever node."""
        self.assertEqual(self.run_at(1, "put", "k", "v"), (0, "", ""))
        self.assertEqual(self.run_at(2, "get", "k"), (0, "v\n", ""))
        self.assertEqual(self.run_at(3, "delete", "k"), (0, "", ""))

    def test_not_found(self) -> None:
        """A script could not tell a missing key from an empty value."""
        self.assertEqual(self.run_at(1, "get", "k"), (1, "", "kvcli: k: not found\n"))
        self.assertEqual(self.run_at(1, "delete", "k"), (1, "", "kvcli: k: not found\n"))

    def test_failed_comparison(self) -> None:
        """C4: a script would believe that it had won a race that it lost."""
        code, out, err = self.run_at(1, "cas", "k", "v", "5")
        self.assertEqual((code, out), (1, ""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("does not exist", err)

    def test_refused(self) -> None:
        """A value over the limit would look like a cluster that is down."""
        code, out, err = self.run_at(1, "put", "k", "v" * 21)
        self.assertEqual((code, out), (4, ""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("value_bytes_max=20", err)

    def test_unavailable(self) -> None:
        """A cluster that is down would be a traceback, or look like a missing key."""
        code, out, err = self.run_at(9, "--timeout=1", "put", "k", "v")
        self.assertEqual((code, out), (3, ""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("10.0.0.9:8001", err)

    def test_timeout(self) -> None:
        """A script that gives a request two seconds would wait for five, or give up at once."""
        clock = self.cluster.network.clock
        for seconds in (2, 20):
            began = clock.seconds()
            self.run_at(9, f"--timeout={seconds}", "put", "k", "v")
            self.assertTrue(seconds <= clock.seconds() - began < seconds + 1.5)

    def test_unreadable_peers(self) -> None:
        """A typing error in ``--peers`` would look like a cluster that is down."""
        for peers in ("nonsense", ":8001,", ":1,:1", ":0"):
            code, out, err = self.kvcli(f"--peers={peers}", "get", "k")
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), err)

    def test_outcome_unknown(self) -> None:
        """C1: a write that may have been done would be called undone, and be done twice."""
        key = self.cluster.key_of(1)
        self.assertEqual(self.run_at(1, "put", key, "v"), (0, "", ""))

        async def lose(client: Client, printer: Printer) -> int:
            del printer
            await client.get(key)
            with self.cluster.network.cut("10.0.0.1", CLIENT_IP):
                await client.put(key, "w")
            return 0

        with self.assertRaises(SystemExit) as caught:
            Session("10.0.0.1:8001", 2.0, Printer(as_json=False)).run(lose)
        self.assertEqual(caught.exception.code, 5)

    def test_json(self) -> None:
        """A script could not read what a command says."""
        code, out, err = self.run_at(1, "put", "k", "v", "--json")
        self.assertEqual((code, err), (0, ""))
        version = json.loads(out)["version"]
        code, out, err = self.run_at(1, "--json", "get", "k")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), {"key": "k", "value": "v", "version": version})

    def test_shows_the_cluster(self) -> None:
        """The commands that show the cluster would work in tests only."""
        for name, expected in (("status", "node-3"), ("ring", "node-3"), ("where", "partition")):
            arguments = ["k"] if name == "where" else []
            code, out, err = self.run_at(2, name, *arguments)
            self.assertEqual((code, err), (0, ""))
            self.assertIn(expected, out)


class UnknownOutcomeTests(SynchronousTestCase):
    """C1: who reads "no answer" must also read what that means."""

    def test_what_to_do_is_said_once(self) -> None:
        """Whatever the node or the client called it."""
        words = in_words(errors.NoAnswer("no answer within 1 s"))
        self.assertEqual(
            words, "no answer within 1 s: it was sent, and its fate is unknown: read the key to see"
        )
        said = "the write was sent to node-2, and its fate is unknown: read the key to see"
        self.assertEqual(in_words(errors.OutcomeUnknown(said)), said)
        self.assertEqual(in_words(errors.Unavailable("nobody")), "nobody")
