"""``twistd kvnode``: the options, and the service that they describe.

Here also stands what a *process* does that a library must not: the reactor's clock is set (T1), the
pid and log files are named after the node (T2), mistakes end the process with one line on standard
error, and a second SIGTERM ends it at once (T11).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python import usage

from kvtwist import software
from kvtwist.core.address import DEFAULT_PORT, Address, parse_address, parse_addresses
from kvtwist.core.topology import PARTITIONS_DEFAULT, REPLICAS_DEFAULT, Settings, check_name
from kvtwist.errors import ConfigurationError, KvtwistError
from kvtwist.node.limits import Limits
from kvtwist.service import Node, NodeConfig
from kvtwist.wire.clock import make_monotonic

EXIT_FAILED = 1
EXIT_USAGE = 2
_LONE_NAME = "node-1"
_TWISTD_PIDFILE = "twistd.pid"

_log = Logger(namespace="kvtwist.node")


def _whole_number(option: str, least: int) -> Callable[[str], int]:
    """What reads the number that is given with *option*."""

    def read(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= 18
        if not digits or int(text) < least:
            raise ValueError(f"--{option}={text[:40]} is not a whole number from {least} on")
        return int(text)

    return read


def _option(setting: str) -> str:
    return setting.replace("_", "-")


_EXPLANATION = f"""
Starts one node of a kvtwist cluster. Alone, it is a cluster of one. To found a cluster of three,
start three nodes, each with its own --id and --addr, all with the same --peers:

    twistd -n kvnode --id=node-1 --addr=:8001 --peers=:8001,:8002,:8003
    twistd -n kvnode --id=node-2 --addr=:8002 --peers=:8001,:8002,:8003
    twistd -n kvnode --id=node-3 --addr=:8003 --peers=:8001,:8002,:8003

The first founding waits until every listed node has been heard. An address is HOST:PORT,
[IPV6]:PORT, or :PORT for this machine only ({DEFAULT_PORT} is the default). Then:

    kvcli --peers=:8001 put user:42 alice

Data is on disk before a write is acknowledged, in --data-dir. A node that is started again there is
who it was. With --memory nothing is kept; all nodes of a cluster have it, or none.

Each limit (..._max, ..._min) is this node's own; over it, an error says its name.
"""


class Options(usage.Options):
    """The command line of ``twistd kvnode``."""

    synopsis = "[options]"
    optParameters = [  # noqa: RUF012 (twisted.python.usage reads it from the class)
        [
            "id",
            None,
            None,
            f"The node's name, each its own. [default: {_LONE_NAME}, without --peers]",
        ],
        ["addr", None, f":{DEFAULT_PORT}", "Where to listen."],
        ["advertise", None, None, "Where others dial this node, if not at --addr."],
        ["peers", None, None, "All nodes of the cluster, this one included, comma-separated."],
        ["data-dir", None, None, "Where this node keeps its data. [default: ID.kvtwist]"],
        [
            "partitions",
            None,
            PARTITIONS_DEFAULT,
            "Into how many partitions the ring is cut: a power of two, the same at every node.",
            _whole_number("partitions", 1),
        ],
        [
            "replicas",
            None,
            REPLICAS_DEFAULT,
            "On how many nodes each partition is, the same at every node. A write waits for a "
            "majority of them: 3 survive the loss of one node, 5 of two. With fewer nodes, on all.",
            _whole_number("replicas", 1),
        ],
        *(
            [
                _option(setting.name),
                None,
                setting.default,
                setting.metadata["meaning"],
                _whole_number(_option(setting.name), 1 if setting.default else 0),
            ]
            for setting in fields(Limits)
        ),
    ]

    optFlags = [  # noqa: RUF012 (likewise)
        ["memory", None, "Keep data in memory only, the same at every node."],
    ]

    config: NodeConfig

    @property
    def pidfile(self) -> str | None:
        """Where twistd writes the process's id, if it does."""
        return None if self.parent is None else self.parent["pidfile"]

    @property
    def is_daemon(self) -> bool:
        """Whether twistd goes into the background."""
        return self.parent is not None and not self.parent["nodaemon"]

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse, or end the process: twistd itself would print pages of help and exit with 0."""
        try:
            super().parseOptions(options)
        except (usage.UsageError, ConfigurationError) as error:
            said = str(error).removeprefix("Parameter type enforcement failed: ")
            _exit(f"{said} (twistd kvnode --help explains)", EXIT_USAGE)

    def getUsage(self, width: int | None = None) -> str:
        """The options, and how they go together."""
        options: str = super().getUsage(width)
        return f"{options}{_EXPLANATION}"

    def opt_version(self) -> None:
        """Display kvtwist's version and exit."""
        sys.stdout.write(f"kvtwist {software()}\n")
        raise SystemExit(0)

    def parseArgs(self, *rest: str) -> None:
        """There are no arguments, only options."""
        if rest:
            raise usage.UsageError(f"{rest[0]!r} is not an option: options start with --")

    def postOptions(self) -> None:
        """Check the options against each other, and make the node's configuration of them."""
        self.config = NodeConfig(
            name=self._name(),
            listen=parse_address(self["addr"]),
            advertise=None if self["advertise"] is None else _dialable(self["advertise"]),
            founders=() if self["peers"] is None else parse_addresses(self["peers"]),
            settings=Settings(
                partitions=self["partitions"],
                replicas=self["replicas"],
                durable=not self["memory"],
            ),
            data_dir=self._data_dir(),
            limits=Limits(**{each.name: self[_option(each.name)] for each in fields(Limits)}),
        )
        self._check_founders()
        self._name_files()

    def _name(self) -> str:
        if self["id"] is not None:
            return check_name(self["id"])
        if self["peers"] is not None:
            raise ConfigurationError("--peers needs --id too: every node has a name of its own")
        return _LONE_NAME

    def _data_dir(self) -> Path | None:
        """As given; else next to where the node is started, before twistd goes elsewhere."""
        if self["memory"]:
            if self["data-dir"] is not None:
                raise ConfigurationError(
                    "--memory keeps nothing: leave out --data-dir, or --memory"
                )
            return None
        if self["data-dir"] == "":
            raise ConfigurationError("--data-dir is empty: name a directory")
        return Path(self["data-dir"] or f"{self._name()}.kvtwist").absolute()

    def _check_founders(self) -> None:
        founders, mine = self.config.founders, self.config.dialled
        if founders and mine not in founders:
            hint = (
                "say with --advertise=HOST:PORT which of them it is"
                if self.config.listen.is_wildcard
                else "list every node of the cluster, this one included"
            )
            listed = ", ".join(map(str, founders))
            raise ConfigurationError(
                f"--peers ({listed}) lacks this node's own address {mine}: {hint}"
            )

    def _name_files(self) -> None:
        """Give the pid and log files names of this node's own, unless the user gave names (T2)."""
        if self.parent is None:
            return
        if self.parent["pidfile"] == _TWISTD_PIDFILE:
            self.parent["pidfile"] = f"kvnode-{self.config.name}.pid"
            self._check_alone(self.parent["pidfile"])
        if self.parent["logfile"] is None and not self.parent["nodaemon"]:
            self.parent["logfile"] = f"kvnode-{self.config.name}.log"

    def _check_alone(self, pidfile: str) -> None:
        """Refuse a second node of this name in this directory, in our words instead of twistd's."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(Path(pidfile).read_text())
            os.kill(pid, 0)
            if pid != os.getpid():
                raise ConfigurationError(
                    f"{self.config.name} runs in this directory already (process {pid}): "
                    "give this node another --id, or stop that one"
                )


def makeService(options: Options) -> NodeProcess:
    """The service that twistd runs; it finds this function by its name."""
    from twisted.internet import reactor

    make_monotonic(reactor)
    assert reactor.seconds is time.monotonic
    return NodeProcess(reactor, options.config, options.pidfile, options.is_daemon)


class NodeProcess(MultiService):
    """A node that has a process to itself."""

    def __init__(
        self, reactor: Any, config: NodeConfig, pidfile: str | None, is_daemon: bool = False
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._pidfile = pidfile
        self._is_daemon = is_daemon
        try:
            Node(reactor, config, hopeless=self._hopeless).setServiceParent(self)
        except ConfigurationError as error:
            _exit(str(error))

    def privilegedStartService(self) -> None:
        """Listen; a port that is in use ends the process."""
        with self._ending_at_errors():
            super().privilegedStartService()

    def startService(self) -> None:
        """Start; a data directory that cannot be used ends the process.

        What is kept is for nobody but this user.
        """
        os.umask(0o077)
        _let_others_finish()
        with self._ending_at_errors():
            super().startService()

    @contextlib.contextmanager
    def _ending_at_errors(self) -> Iterator[None]:
        try:
            yield
        except KvtwistError as error:
            self._remove_pidfile()
            if self._is_daemon:
                raise  # twistd tells the process that waits at the terminal, and ends with 1
            _exit(str(error))

    def stopService(self) -> Deferred[None]:
        """Stop in order; from now on a second signal ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        stopping: Deferred[None] = super().stopService()
        return stopping

    def _hopeless(self, error: KvtwistError) -> None:
        """Stop the reactor, and leave a non-zero exit status behind.

        The reactor has no way to end with a status. So once twistd has cleaned up, the first of
        the functions that Python calls at exit ends the process with ours.
        """
        _log.critical("{error}", error=error)
        _complain(str(error))
        atexit.register(_leave, EXIT_FAILED)
        if self._reactor.running:
            with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
                self._reactor.stop()
        else:
            self._reactor.callWhenRunning(self._reactor.stop)

    def _remove_pidfile(self) -> None:
        """Clean up what twistd leaves behind when a service ends the process at its start."""
        if self._pidfile is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._pidfile)


def _let_others_finish() -> None:
    """Have the kernel let whoever runs go on for a moment when something comes for this node.

    Where nodes and clients share a processor, a node that interrupts them at each message takes
    each by itself, and one that waits for them takes several in one turn, with one sync: 9 % more
    puts, with 64 in flight. Where a processor is free nobody waits. Whoever has chosen another
    policy keeps it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _dialable(text: str) -> Address:
    address = parse_address(text)
    if address.is_wildcard:
        raise ConfigurationError(
            f"--advertise={text} cannot be dialled: name one address that others reach"
        )
    return address


def _complain(message: str) -> None:
    """One line on the real standard error, which twistd may have turned into its log."""
    stream = sys.__stderr__
    if stream is not None:
        print(f"kvnode: {' '.join(message.split())}", file=stream, flush=True)


def _exit(message: str, status: int = EXIT_FAILED) -> NoReturn:
    _complain(message)
    raise SystemExit(status)


def _leave(status: int) -> NoReturn:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(status)
