"""``twistd kvnode``: its command line, its files, its clock, its end."""

from __future__ import annotations

import atexit
import errno
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import twisted.internet
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kvtwist import software
from kvtwist.core.address import Address
from kvtwist.core.topology import Settings
from kvtwist.errors import ConfigurationError
from kvtwist.node.limits import Limits
from kvtwist.service import Node, NodeConfig
from kvtwist.tap import NodeProcess, Options, makeService
from kvtwist.wire.clock import elapsed_clock, make_monotonic
from tests.cluster import SimulatedCluster
from tests.simulated import Host

EXPLAINS = "(twistd kvnode --help explains)"

MISTAKES: list[tuple[list[str], list[str]]] = [
    # the list of peers
    (["--id=a", "--peers=:8002,:8003"], ["127.0.0.1:8001", ":8002", "lacks", "list every node"]),
    (["--id=a", "--addr=:8004", "--peers=:8001,:8002"], ["127.0.0.1:8004", "lacks"]),
    (["--id=a", "--peers=:8001,:8001"], ["127.0.0.1:8001", "twice"]),
    (["--id=a", "--peers=:8001,localhost:8001"], ["127.0.0.1:8001", "twice"]),
    (["--id=a", "--peers="], ["''", "HOST:PORT"]),
    (["--id=a", "--peers=:8001,"], ["''", "HOST:PORT"]),
    (["--id=a", "--peers=:8001,nonsense"], ["'nonsense'", "HOST:PORT"]),
    (["--peers=:8001"], ["--peers needs --id"]),
    # a wildcard
    (
        ["--id=a", "--addr=0.0.0.0:8001", "--peers=10.0.0.1:8001,10.0.0.2:8001"],
        ["--advertise=HOST:PORT"],
    ),
    (["--id=a", "--addr=[::]:8001", "--peers=[::]:8001"], ["--advertise=HOST:PORT"]),
    (["--advertise=0.0.0.0:8001"], ["--advertise=0.0.0.0:8001", "cannot be dialled"]),
    (["--advertise=[::]:8001"], ["--advertise=[::]:8001", "cannot be dialled"]),
    (
        ["--id=a", "--advertise=10.0.0.9:8001", "--peers=:8001,:8002"],
        ["10.0.0.9:8001", "lacks"],
    ),
    # names and addresses
    (["--id="], ["--id is empty"]),
    (["--id=", "--peers=:8001"], ["--id is empty"]),
    (["--id=a/b"], ["'a/b'", "letters"]),
    (["--id=.."], ["'..'"]),
    (["--id=" + "x" * 65], ["64"]),
    (["--addr=nonsense"], ["'nonsense'", "HOST:PORT"]),
    (["--addr=:0"], ["':0'", "65535"]),
    (["--addr=::1:8001"], ["'::1:8001'", "brackets"]),
    (["--advertise=8001"], ["'8001'", "HOST:PORT"]),
    # numbers
    (["--partitions=0"], ["--partitions=0", "from 1 on"]),
    (["--partitions=63"], ["--partitions=63", "power of two", "4096"]),
    (["--partitions=8192"], ["--partitions=8192", "power of two", "4096"]),
    (["--partitions=-64"], ["--partitions=-64"]),
    (["--partitions=many"], ["--partitions=many", "whole number"]),
    (["--partitions=1e3"], ["--partitions=1e3", "whole number"]),
    (["--replicas=0"], ["--replicas=0", "from 1 on"]),
    (["--replicas=65"], ["--replicas=65", "1 to 64"]),
    (["--replicas=all"], ["--replicas=all", "whole number"]),
    (["--value-bytes-max=-1"], ["--value-bytes-max=-1"]),
    (["--value-bytes-max=0"], ["--value-bytes-max=0"]),
    # the form
    (["--nope"], ["--nope"]),
    (["--nope=1"], ["--nope"]),
    (["--id"], ["--id"]),
    (["node-1"], ["'node-1'", "options start with --"]),
    (["--id=a", "8001"], ["'8001'", "options start with --"]),
    (["-n"], ["-n"]),
    (["--p=1"], ["--p"]),
]


class TapTestCase(SynchronousTestCase):
    """Catches what is said on standard error."""

    def setUp(self) -> None:
        """Catch it."""
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)

    def one_line(self) -> str:
        """What was said on standard error: one line."""
        said = self.stderr.getvalue()
        self.assertTrue(said.startswith("kvnode: "), said)
        self.assertEqual((said.count("\n"), said[-1:]), (1, "\n"), said)
        return said.removeprefix("kvnode: ").rstrip("\n")


class OptionsTests(TapTestCase):
    """The command line."""

    def parse(self, *arguments: str) -> NodeConfig:
        """The configuration that *arguments* make."""
        options = Options()
        options.parseOptions(list(arguments))
        self.assertEqual(self.stderr.getvalue(), "")
        return options.config

    def mistake(self, *arguments: str) -> str:
        """The line that is said about *arguments*, which must end the process with 2."""
        self.stderr.seek(0)
        self.stderr.truncate()
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.multiple(sys, stdout=out, stderr=err):
            try:
                Options().parseOptions(list(arguments))
            except SystemExit as exit_:
                self.assertEqual(exit_.code, 2, arguments)
            else:
                self.fail(f"{arguments} were taken")
        self.assertEqual((out.getvalue(), err.getvalue()), ("", ""), arguments)
        return self.one_line()

    def test_nothing_given(self) -> None:
        """``twistd -n kvnode`` alone would not start a node that one can try."""
        expected = NodeConfig(
            name="node-1",
            listen=Address("127.0.0.1", 8001),
            settings=Settings(durable=True),
            data_dir=Path("node-1.kvtwist").absolute(),
        )
        self.assertEqual(self.parse(), expected)

    def test_where_data_is_kept(self) -> None:
        """Data would be kept elsewhere than was said, or not at all."""
        given = self.parse("--data-dir=/var/lib/kv")
        self.assertEqual((given.data_dir, given.settings.durable), (Path("/var/lib/kv"), True))
        self.assertEqual(self.parse("--id=a").data_dir, Path("a.kvtwist").absolute())
        memory = self.parse("--memory")
        self.assertEqual((memory.data_dir, memory.settings.durable), (None, False))
        self.assertIn("--memory keeps nothing", self.mistake("--memory", "--data-dir=x"))
        self.assertIn("--data-dir is empty", self.mistake("--data-dir="))

    def test_three_nodes(self) -> None:
        """The quick start would not work as it is written."""
        founders = tuple(Address("127.0.0.1", port) for port in (8001, 8002, 8003))
        for number in (1, 2, 3):
            config = self.parse(
                f"--id=node-{number}", f"--addr=:800{number}", "--peers=:8001,:8002,:8003"
            )
            self.assertEqual(config.name, f"node-{number}")
            self.assertEqual(config.listen, founders[number - 1])
            self.assertEqual(config.dialled, config.listen)
            self.assertEqual(config.founders, founders)

    def test_separate_values(self) -> None:
        """``--id node-2``, the other way to write it, would not be understood."""
        config = self.parse("--id", "node-2", "--addr", "[::1]:9000")
        self.assertEqual((config.name, config.listen), ("node-2", Address("::1", 9000)))

    def test_itself_in_another_spelling(self) -> None:
        """A node would not find itself in a list that names it."""
        for own in ("localhost:8001", "127.0.0.1:8001", " :8001"):
            self.assertEqual(len(self.parse("--id=a", f"--peers={own},:8002").founders), 2)
        self.parse("--id=a", "--addr=[0::1]:8001", "--peers=[::1]:8001,[::1]:8002")

    def test_other_machines(self) -> None:
        """A node could not listen on all interfaces and be dialled at one."""
        config = self.parse(
            "--id=a",
            "--addr=0.0.0.0:8001",
            "--advertise=10.0.0.1:8001",
            "--peers=10.0.0.1:8001,db-2.example.org:8001",
        )
        self.assertEqual(config.listen, Address("0.0.0.0", 8001))
        self.assertEqual(config.dialled, Address("10.0.0.1", 8001))
        self.assertEqual(config.founders[1], Address("db-2.example.org", 8001))

    def test_wildcard_alone(self) -> None:
        """A lone node in a container could not be reached from outside."""
        config = self.parse("--addr=0.0.0.0:8001")
        self.assertEqual(config.dialled, Address("127.0.0.1", 8001))

    def test_partitions(self) -> None:
        """A cluster would be founded with another number of partitions than was asked for."""
        self.assertEqual(self.parse().settings.partitions, 16)
        self.assertEqual(self.parse("--partitions=4096").settings.partitions, 4096)

    def test_replicas(self) -> None:
        """A cluster would be founded that keeps other numbers of copies than were asked for."""
        self.assertEqual(self.parse().settings.replicas, 3)
        self.assertEqual(self.parse("--replicas=5").settings.replicas, 5)

    def test_limits(self) -> None:
        """A limit would be settable on paper only, or set another one."""
        self.assertEqual(self.parse().limits, Limits())
        for at, each in enumerate(fields(Limits), start=100 << 20):
            option = each.name.replace("_", "-")
            self.assertEqual(
                self.parse(f"--{option}={at}").limits, Limits(**{each.name: at}), option
            )

    def test_mistakes(self) -> None:
        """A mistake would be a traceback, a page of help, a line that does not say what to do, or
        an exit code that a supervisor takes for a crash."""
        for arguments, parts in MISTAKES:
            said = self.mistake(*arguments)
            for part in parts:
                self.assertIn(part, said, arguments)
            self.assertTrue(said.endswith(EXPLAINS), said)

    def test_number_names_its_option(self) -> None:
        """One would have to guess which of many numbers cannot be read."""
        for option in (
            "partitions",
            "replicas",
            "key-bytes-max",
            "connections-max",
            "box-bytes-max",
        ):
            self.assertIn(option, self.mistake("--id=a", f"--{option}=x"))

    def test_numbers_of_other_alphabets(self) -> None:
        """A number that one cannot read on the screen would be taken."""
        self.assertIn("\u0664", self.mistake("--partitions=\u0664"))

    def test_long_numbers(self) -> None:
        """A number with many digits would be cut, and another one be in force."""
        for digits in ("0" * 19 + "16", "1" + "0" * 25):
            options = Options()
            try:
                options.parseOptions([f"--value-bytes-max={digits}"])
            except SystemExit as exit_:
                self.assertEqual(exit_.code, 2)
            else:
                self.assertEqual(options.config.limits.value_bytes_max, int(digits))

    def test_line_ends(self) -> None:
        """A line end in a variable would make two lines in a log, the second without a sender."""
        self.mistake("--advertise=0.0.0.0:8001\n")
        self.mistake("--no\npe")

    def test_standard_error_is_closed(self) -> None:
        """A supervisor that closes standard error would see a traceback's code, not 2."""
        self.patch(sys, "__stderr__", None)
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        with self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--nope"])
        self.assertEqual((caught.exception.code, out.getvalue()), (2, ""))

    def test_help(self) -> None:
        """One would have to leave the terminal to learn how to start three nodes."""
        shown = str(Options())
        for part in ("--peers=:8001,:8002,:8003", "--id=", "--addr=", "--advertise=", "kvcli"):
            self.assertIn(part, shown)
        for each in fields(Limits):
            self.assertIn(f"--{each.name.replace('_', '-')}=", shown)
            self.assertIn(each.metadata["meaning"].split()[0], shown)

    def test_help_ends_well(self) -> None:
        """Asking for help would look like a failure."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        with self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--help"])
        self.assertIn(caught.exception.code, (0, None))
        self.assertIn("--peers", out.getvalue())

    def test_version(self) -> None:
        """One would read Twisted's version, and report it as kvtwist's."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        with self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--version"])
        self.assertEqual(caught.exception.code, 0)
        self.assertIn(f"kvtwist {software()}", out.getvalue())


class FileNamesTests(TapTestCase):
    """The pid file and the log file (T2)."""

    def parse(self, parent: Any, *arguments: str) -> Options:
        """The options, parsed as twistd does, below its own."""
        options = Options()
        options.parent = parent
        options.parseOptions(list(arguments))
        return options

    def twistd(self, **changes: object) -> dict[str, object]:
        """Twistd's own options, as far as they matter here."""
        return {"pidfile": "twistd.pid", "logfile": None, "nodaemon": 1} | changes

    def test_what_twistd_says(self) -> None:
        """T2: a release of Twisted with another default would bring the trap back unnoticed."""
        theirs = ServerOptions()
        for name, default in self.twistd(nodaemon=0).items():
            self.assertEqual(theirs[name], default)

    def test_pid_file(self) -> None:
        """T2: the second node in a directory would die: "Another twistd server is running"."""
        names = set()
        for name in ("node-1", "node-2"):
            parent = self.twistd()
            options = self.parse(parent, f"--id={name}")
            self.assertEqual(parent["pidfile"], f"kvnode-{name}.pid")
            self.assertEqual(options.pidfile, parent["pidfile"])
            names.add(parent["pidfile"])
        self.assertEqual(len(names), 2)

    def test_under_the_real_twistd(self) -> None:
        """T2: the names would be set where twistd does not look for them."""
        parent = ServerOptions()
        self.parse(parent, "--id=node-7")
        self.assertEqual(parent["pidfile"], "kvnode-node-7.pid")
        self.assertEqual(parent["logfile"], "kvnode-node-7.log")

    def test_without_a_name(self) -> None:
        """T2: a lone node would collide with any other program of twistd's."""
        parent = self.twistd()
        self.parse(parent)
        self.assertEqual(parent["pidfile"], "kvnode-node-1.pid")

    def test_pid_file_of_the_user(self) -> None:
        """T2: a supervisor would wait for a pid file that never comes."""
        for chosen in ("/run/kv.pid", "other.pid", ""):
            parent = self.twistd(pidfile=chosen)
            options = self.parse(parent, "--id=node-2")
            self.assertEqual(parent["pidfile"], chosen)
            self.assertEqual(options.pidfile, chosen)

    def test_log_file(self) -> None:
        """T2: the daemons of one directory would write into one log, and rotate it in turn."""
        parent = self.twistd(nodaemon=0)
        self.parse(parent, "--id=node-2")
        self.assertEqual(parent["logfile"], "kvnode-node-2.log")

    def test_no_log_file_in_the_foreground(self) -> None:
        """``twistd -n`` would be silent: its log would go to a file that nobody asked for."""
        parent = self.twistd(nodaemon=1)
        self.parse(parent, "--id=node-2")
        self.assertIsNone(parent["logfile"])

    def test_log_file_of_the_user(self) -> None:
        """The log would not be where the user wants it."""
        for chosen in ("/var/log/kv.log", "-"):
            for nodaemon in (0, 1):
                parent = self.twistd(logfile=chosen, nodaemon=nodaemon)
                self.parse(parent, "--id=node-2")
                self.assertEqual(parent["logfile"], chosen)

    def test_no_parent(self) -> None:
        """Another program could not read the options without twistd."""
        self.assertIsNone(self.parse(None, "--id=node-2").pidfile)

    def test_mistake_names_no_files(self) -> None:
        """T2: a node that is refused would leave its name on somebody's files."""
        parent = self.twistd(nodaemon=0)
        with self.assertRaises(SystemExit):
            self.parse(parent, "--id=node-2", "--peers=:8002")
        self.assertEqual(parent, self.twistd(nodaemon=0))


class Clocks:
    """The wall clock and the monotonic one, to be set at will."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.wall_seconds = 1_700_000_000.0
        self.monotonic_seconds = 5_000.0
        test.patch(time, "time", lambda: self.wall_seconds)
        test.patch(time, "monotonic", lambda: self.monotonic_seconds)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_seconds += seconds
        self.monotonic_seconds += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock, as an operator or NTP does."""
        self.wall_seconds += seconds


class TwistedReactor(ReactorBase):
    """Twisted's own timers, without the rest of a reactor."""

    def seconds(self) -> float:
        """As a reactor's: the wall clock."""
        return time.time()

    def installWaker(self) -> None:
        """Nobody sleeps."""


class MonotonicTests(SynchronousTestCase):
    """T1: the clock of a reactor that is ours."""

    def test_without_timers(self) -> None:
        """T1: the wall clock would go on driving the timers."""
        for reactor in (Clock(), TwistedReactor()):
            make_monotonic(reactor)
            self.assertIs(reactor.seconds, time.monotonic)

    def test_with_timers(self) -> None:
        """T1: a timer set before would be counted by the other clock, and never fire."""
        for reactor in (Clock(), TwistedReactor()):
            before = reactor.seconds
            reactor.callLater(1, lambda: None)
            with self.assertRaises(RuntimeError) as caught:
                make_monotonic(reactor)
            self.assertIn("timers already", str(caught.exception))
            self.assertEqual(reactor.seconds, before)

    def test_twice(self) -> None:
        """T1: two nodes in one process, or a program that did it itself, would not start."""
        reactor = Clock()
        make_monotonic(reactor)
        reactor.callLater(1, lambda: None)
        make_monotonic(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_wall_clock_stops_timers(self) -> None:
        """T1: this is the trap; if Twisted closes it one day, our care can go."""
        self.assertFalse(self.fires_after_a_step(-3600, mended=False))

    def test_wall_clock_steps(self) -> None:
        """T1: setting the clock back by an hour would stop the node for an hour."""
        for step_seconds in (-3600, 3600, -1e9):
            self.assertTrue(self.fires_after_a_step(step_seconds, mended=True))

    def test_wall_clock_leaps(self) -> None:
        """T1: setting the clock forward would end every timeout at once."""
        clocks = Clocks(self)
        reactor = TwistedReactor()
        make_monotonic(reactor)
        timer = reactor.callLater(5, lambda: None)
        clocks.step(3600)
        reactor.runUntilCurrent()
        self.assertTrue(timer.active())
        self.assertEqual(reactor.timeout(), 5)

    def fires_after_a_step(self, step_seconds: float, mended: bool) -> bool:
        """Whether a timer of 5 s fires within 6 s, if the wall clock is set meanwhile."""
        clocks = Clocks(self)
        reactor = TwistedReactor()
        if mended:
            make_monotonic(reactor)
        timer = reactor.callLater(5, lambda: None)
        reactor.runUntilCurrent()
        self.assertTrue(timer.active())
        clocks.step(step_seconds)
        clocks.pass_by(6)
        reactor.runUntilCurrent()
        return not timer.active()


class ElapsedClockTests(SynchronousTestCase):
    """T1: the clock of a node that is a guest in another program."""

    def test_reactor_with_a_wall_clock(self) -> None:
        """T1: a guest would measure its deadlines by a clock that somebody may set back."""
        clocks = Clocks(self)
        reactor = TwistedReactor()
        before = reactor.seconds
        with capturedLogs() as events:
            clock = elapsed_clock(reactor)
        self.assertIs(clock, time.monotonic)
        self.assertEqual(reactor.seconds, before)
        (event,) = events
        self.assertEqual(event["log_level"].name, "warn")
        self.assertIn("reactor.seconds = time.monotonic", event["log_format"])
        began = clock()
        clocks.step(-3600)
        clocks.pass_by(2)
        self.assertEqual(clock() - began, 2)

    def test_reactor_with_a_clock_of_its_own(self) -> None:
        """A whole node could not run in simulated time, and its tests would wait in real time."""
        reactor = Clock()
        with capturedLogs() as events:
            clock = elapsed_clock(reactor)
        self.assertEqual(events, [])
        reactor.advance(7)
        self.assertEqual(clock(), 7)

    def test_reactor_that_was_made_monotonic(self) -> None:
        """T1: the warning would stand in every log of every node, and mean nothing."""
        Clocks(self)
        reactor = TwistedReactor()
        make_monotonic(reactor)
        with capturedLogs() as events:
            clock = elapsed_clock(reactor)
        self.assertEqual(events, [])
        self.assertEqual(clock(), 5_000)

    def test_embedded_node(self) -> None:
        """T1: a node inside a program would change that program's clock under its timers."""
        reactor = Clock()
        before = reactor.seconds
        Node(reactor, NodeConfig("a", Address("127.0.0.1", 8001)))
        self.assertEqual(reactor.seconds, before)


class ProcessReactor:
    """A simulated host as the reactor of a process: one can stop it, once."""

    def __init__(self, host: Host, running: bool = True) -> None:
        self._host = host
        self.running = running
        self.stopped = False
        self.when_running: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def stop(self) -> None:
        """As a real reactor's."""
        if self.stopped:
            raise ReactorNotRunning("Can't stop reactor that isn't running.")
        self.stopped = True

    def callWhenRunning(self, call: Any, *args: Any) -> None:
        """As a real reactor's."""
        if self.running:
            call(*args)
        else:
            self.when_running.append(call)

    def run(self) -> None:
        """Begin to run."""
        self.running = True
        for call in self.when_running:
            call()


class ProcessTestCase(TapTestCase):
    """Runs nodes that have a process to themselves, without the process."""

    def setUp(self) -> None:
        """Keep this process's signal handlers, and the end of it, as they are."""
        super().setUp()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.at_exit: list[tuple[Any, ...]] = []
        self.patch(atexit, "register", lambda *call: self.at_exit.append(call))
        self.policies: list[int] = []
        if sys.platform == "linux":
            self.patch(
                os, "sched_setscheduler", lambda pid, policy, param: self.policies.append(policy)
            )
        self.cluster = SimulatedCluster(2)
        self.network = self.cluster.network

    def process(
        self, number: int = 3, pidfile: str | None = None, running: bool = True, **changes: Any
    ) -> tuple[NodeProcess, ProcessReactor]:
        """A process on a host of its own, not started yet."""
        address = Address(f"10.0.0.{number}", 8001)
        config: dict[str, Any] = {"name": f"node-{number}", "listen": address} | changes
        reactor = ProcessReactor(self.network.host(address.host), running)
        return NodeProcess(reactor, NodeConfig(**config), pidfile), reactor

    def start(self, process: NodeProcess) -> None:
        """Start it as twistd does."""
        process.privilegedStartService()
        process.startService()

    def stop(self, process: NodeProcess) -> None:
        """Stop it, and let it end."""
        stopping = process.stopService()
        self.network.run(5)
        self.successResultOf(stopping)


class MakeServiceTests(ProcessTestCase):
    """What twistd calls."""

    def test_makes_the_clock_monotonic(self) -> None:
        """T1: a node started by twistd would stop whenever somebody sets the clock back."""
        reactor = TwistedReactor()
        options = Options()
        options.parseOptions(["--id=node-5"])
        with (
            mock.patch.dict(sys.modules, {"twisted.internet.reactor": reactor}),
            mock.patch.object(twisted.internet, "reactor", reactor, create=True),
            capturedLogs() as events,
        ):
            service = makeService(options)
        self.assertIs(reactor.seconds, time.monotonic)
        self.assertIsInstance(service, NodeProcess)
        self.assertEqual(events, [])
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_with_timers(self) -> None:
        """T1: a plugin that set a timer first would leave it behind for ever, without a word."""
        reactor = TwistedReactor()
        reactor.callLater(1, lambda: None)
        options = Options()
        options.parseOptions([])
        with (
            mock.patch.dict(sys.modules, {"twisted.internet.reactor": reactor}),
            mock.patch.object(twisted.internet, "reactor", reactor, create=True),
            self.assertRaises(RuntimeError),
        ):
            makeService(options)


class StartTests(ProcessTestCase):
    """The start of a process."""

    def setUp(self) -> None:
        """Make a directory for pid files."""
        super().setUp()
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def pidfile(self) -> Path:
        """A pid file, as twistd has written it."""
        path = self.directory / "kvnode.pid"
        path.write_text(str(os.getpid()))
        return path

    def test_lets_others_finish(self) -> None:
        """Nodes that share a processor would interrupt each other at every message; and one whose
        user has given it another policy would not keep it."""
        if sys.platform != "linux":
            raise SkipTest("there is no such policy")
        for policy, given in ((os.SCHED_OTHER, [os.SCHED_BATCH]), (os.SCHED_RR, [])):
            self.patch(os, "sched_getscheduler", lambda pid, policy=policy: policy)
            process, _ = self.process(1)
            self.start(process)
            self.assertEqual(self.policies, given)
            self.policies.clear()
            self.stop(process)

    def test_starts_where_it_may_not(self) -> None:
        """A sandbox that forbids it would keep the node from starting."""
        if sys.platform != "linux":
            raise SkipTest("there is no such policy")

        def forbidden(*given: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "sched_setscheduler", forbidden)
        process, reactor = self.process(1)
        self.start(process)
        self.assertFalse(reactor.stopped)
        self.stop(process)

    def test_serves(self) -> None:
        """A node that twistd starts would not be one."""
        pidfile = self.pidfile()
        process, reactor = self.process(1, str(pidfile))
        self.start(process)
        self.network.run(1)
        version = self.network.result_of(self.cluster.client(1).put(b"k", b"v"))
        self.assertGreater(version, 0)
        self.assertEqual((self.stderr.getvalue(), reactor.stopped, self.at_exit), ("", False, []))
        self.assertTrue(pidfile.exists())
        self.stop(process)

    def test_port_in_use(self) -> None:
        """A node whose port is taken would hang, or end with a traceback or with 0."""
        self.cluster.start(1)
        pidfile = self.pidfile()
        process, _ = self.process(1, str(pidfile))
        with self.assertRaises(SystemExit) as caught:
            process.privilegedStartService()
        self.assertEqual(caught.exception.code, 1)
        said = self.one_line()
        for part in ("10.0.0.1:8001", "Address already in use", "--addr"):
            self.assertIn(part, said)
        self.assertFalse(pidfile.exists())

    def test_port_in_use_without_a_pid_file(self) -> None:
        """``--pidfile=`` would turn the clear message into a traceback."""
        self.cluster.start(1)
        for pidfile in (None, "", str(self.directory / "missing")):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            process, _ = self.process(1, pidfile)
            with self.assertRaises(SystemExit) as caught:
                process.privilegedStartService()
            self.assertEqual(caught.exception.code, 1)
            self.assertIn("10.0.0.1:8001", self.one_line())

    def test_contradiction(self) -> None:
        """A configuration that only the node itself finds wrong would be a traceback."""
        with self.assertRaises(SystemExit) as caught:
            self.process(3, founders=(Address("10.0.0.1", 8001),))
        self.assertEqual(caught.exception.code, 1)
        self.assertIn("lacks this node's own address 10.0.0.3:8001", self.one_line())


class HopelessTests(ProcessTestCase):
    """A node that has no place in its cluster."""

    def assert_has_given_up(self, reactor: ProcessReactor, *parts: str) -> None:
        """It says why, once; the reactor stops; and the process will end with a failure."""
        said = self.one_line()
        for part in parts:
            self.assertIn(part, said)
        self.assertTrue(reactor.stopped)
        self.assertEqual(len(self.at_exit), 1)
        call, *arguments = self.at_exit[0]
        self.patch(sys, "__stdout__", io.StringIO())
        with mock.patch("os._exit", side_effect=SystemExit) as leave:
            self.assertRaises(SystemExit, call, *arguments)
        leave.assert_called_once_with(1)

    def stranger(self) -> tuple[NodeProcess, ProcessReactor]:
        """A node that was not there when its cluster was founded."""
        self.cluster.found()
        mine = Address("10.0.0.3", 8001)
        return self.process(3, founders=(*self.cluster.addresses, mine))

    def test_stranger(self) -> None:
        """A node without a place would run on, and a supervisor believe that it serves."""
        process, reactor = self.stranger()
        self.start(process)
        self.network.run(2)
        self.assert_has_given_up(reactor, "founded without node-3 at 10.0.0.3:8001")
        self.stop(process)

    def test_logged(self) -> None:
        """The log, which is all that is left of a daemon, would not say why it ended."""
        process, _ = self.stranger()
        with capturedLogs() as events:
            self.start(process)
            self.network.run(2)
        critical = [event for event in events if event["log_level"].name == "critical"]
        self.assertEqual(len(critical), 1)
        self.assertIn("founded without node-3", str(critical[0]["error"]))
        self.stop(process)

    def test_second_of_a_name(self) -> None:
        """Two nodes of one name: the newcomer would run on beside the first, and be told so by
        both sides: twice said, and the reactor stopped twice."""
        self.cluster.size = 3
        self.cluster.start(1, 2)
        self.cluster.run(2)
        mine = Address("10.0.0.3", 8001)
        process, reactor = self.process(3, name="node-1", founders=self.cluster.addresses)
        self.assertIn(mine, self.cluster.addresses)
        self.start(process)
        self.network.run(3)
        self.assert_has_given_up(reactor, "the name node-1 is already used", "10.0.0.3:8001")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.stop(process)

    def test_before_the_reactor_runs(self) -> None:
        """A node that is hopeless at once would leave a process that runs for ever."""
        process, reactor = self.stranger()
        reactor.running = False
        self.start(process)
        self.network.run(2)
        self.assertFalse(reactor.stopped)
        reactor.run()
        self.assert_has_given_up(reactor, "founded without node-3")
        self.stop(process)

    def test_while_it_is_being_stopped(self) -> None:
        """A node that is told so while it stops would log a traceback about the reactor."""
        with mock.patch("kvtwist.tap.Node") as node:
            _, reactor = self.process()
        reactor.stop()
        node.call_args.kwargs["hopeless"](ConfigurationError("the name is taken"))
        self.assertEqual(self.one_line(), "the name is taken")

    def test_exit_with_closed_streams(self) -> None:
        """A daemon, whose streams are gone, would end with 0 after all."""
        self.patch(sys, "__stdout__", None)
        self.patch(sys, "__stderr__", None)
        process, _ = self.stranger()
        self.start(process)
        self.network.run(2)
        ((call, *arguments),) = self.at_exit
        with mock.patch("os._exit", side_effect=SystemExit) as leave:
            self.assertRaises(SystemExit, call, *arguments)
        leave.assert_called_once_with(1)
        self.stop(process)


class StopTests(ProcessTestCase):
    """The end of a process."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What the reactor does at a signal."""

    def test_second_signal(self) -> None:
        """T11: a node that hangs while it stops could only be ended with SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle)
        process, _ = self.process()
        self.start(process)
        self.network.run(1)
        self.assertEqual(signal.getsignal(signal.SIGTERM), self.handle)
        stopping = process.stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertIs(signal.getsignal(number), signal.SIG_DFL)
        self.network.run(5)
        self.successResultOf(stopping)

    def test_stops_listening(self) -> None:
        """T11: a node that is stopping would go on to take connections that it drops."""
        process, _ = self.process(3)
        self.start(process)
        host = self.network.host("10.0.0.3")
        self.assertEqual(list(host.ports), [8001])
        stopping: Deferred[None] = process.stopService()
        self.assertEqual(list(host.ports), [])
        self.network.run(5)
        self.successResultOf(stopping)

    def test_starts_again(self) -> None:
        """T11: the port would stay taken, and a restarted node fail."""
        process, _ = self.process(3)
        self.start(process)
        self.stop(process)
        again, _ = self.process(3)
        self.start(again)
        self.assertEqual(self.stderr.getvalue(), "")
        self.stop(again)
