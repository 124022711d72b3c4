"""The commands of ``kvcli`` and their help."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvtwist import __version__
from kvtwist.cli.show import Printer
from kvtwist.core.address import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kvtwist.client import Client

EXIT_CODES = """\b
Exit codes:
  0  done
  1  not found, or the comparison failed
  2  the command line makes no sense
  3  unavailable; definitely not done
  4  refused, as over a limit
  5  the outcome of a write is unknown
"""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _bytes_argument(name: str) -> Callable[[_Function], _Function]:
    """An argument as the bytes that the shell passed, whatever their encoding."""
    return click.argument(name, callback=lambda _, __, given: os.fsencode(given))


def _finite(_: click.Context, __: click.Parameter, given: float | None) -> float | None:
    """Refuse what is no number, which no range excludes."""
    if given is not None and not math.isfinite(given):
        raise click.BadParameter(f"{given} is not a finite number.")
    return given


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "--peers",
    envvar="KVTWIST_PEERS",
    default=f":{DEFAULT_PORT}",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT,...",
    help="Nodes to ask, any that the cluster has. One is enough; several survive its loss.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a request may take, retries included.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object.")
@click.version_option(__version__, prog_name="kvcli")
@click.pass_context
def cli(context: click.Context, peers: str, timeout: float, as_json: bool) -> None:
    """Read and write a kvtwist cluster.

    \b
    kvcli --peers=:8001,:8002,:8003 put user:42 alice
    kvcli --peers=:8001 get user:42
    """
    context.obj = Session(peers, timeout, Printer(as_json))


class Session:
    """What the options before the command said."""

    def __init__(self, peers: str, timeout_seconds: float, printer: Printer) -> None:
        self.peers = peers
        self.timeout_seconds = timeout_seconds
        self.printer = printer

    def run(self, work: Callable[[Client, Printer], Coroutine[Any, Any, int]]) -> None:
        """Run *work* with a client; exit with the status that it returns."""
        from kvtwist.cli.run import run_with_client

        run_with_client(self.peers, self.timeout_seconds, self.printer, work)


def _json_too(function: _Function) -> _Function:
    """Let ``--json`` stand behind the command as well."""

    def note(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj.printer = Printer(as_json=True)

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="Print JSON, one object."
    )(function)


@cli.command()
@_bytes_argument("key")
@_bytes_argument("value")
@_json_too
@click.pass_obj
def put(session: Session, key: bytes, value: bytes) -> None:
    """Write VALUE under KEY, whatever was there.

    With - for VALUE it is read from standard input, as it is. Write -- before a KEY or VALUE that
    starts with a dash (a lone - always means standard input). Prints nothing when done.
    """
    from kvtwist.cli.data import put as work

    value = _value(value)
    session.run(lambda client, printer: work(client, printer, key, value))


@cli.command()
@_bytes_argument("key")
@click.option("--raw", is_flag=True, help="Write the value as it is, with no line end added.")
@_json_too
@click.pass_obj
def get(session: Session, key: bytes, raw: bool) -> None:
    """Print the value of KEY; exit with 1 if there is none.

    A value that is not UTF-8 text is shown with escapes, as in Python; --raw writes it as it is.
    """
    from kvtwist.cli.data import get as work

    session.run(lambda client, printer: work(client, printer, key, raw))


@cli.command()
@_bytes_argument("key")
@click.option("--version", type=click.IntRange(min=1), help="Only if KEY is at this version.")
@_json_too
@click.pass_obj
def delete(session: Session, key: bytes, version: int | None) -> None:
    """Remove KEY; exit with 1 if there is none, or if it is at another version."""
    from kvtwist.cli.data import delete as work

    session.run(lambda client, printer: work(client, printer, key, version))


@cli.command()
@_bytes_argument("key")
@_bytes_argument("value")
@click.argument("version", type=click.IntRange(min=0))
@_json_too
@click.pass_obj
def cas(session: Session, key: bytes, value: bytes, version: int) -> None:
    """Write VALUE under KEY only if KEY is at VERSION (compare and set).

    VERSION 0 means: only if KEY does not exist. `kvcli get --json` shows versions. With - for VALUE
    it is read from standard input. Prints the new version; exits with 1, and says what is there, if
    KEY is at another one.
    """
    from kvtwist.cli.data import cas as work

    value = _value(value)
    session.run(lambda client, printer: work(client, printer, key, value, version))


@cli.command()
@_bytes_argument("key")
@click.option(
    "--by",
    type=click.IntRange(-(1 << 63), (1 << 63) - 1),
    default=1,
    show_default=True,
    metavar="N",
    help="What to add; may be negative.",
)
@_json_too
@click.pass_obj
def incr(session: Session, key: bytes, by: int) -> None:
    """Add to the number under KEY, and print what it is then.

    A KEY that does not exist counts as 0. The value is the number in decimal digits, from -2^63 to
    2^63 - 1; exits with 4, and changes nothing, if KEY holds something else, or if the sum would be
    beyond that.
    """
    from kvtwist.cli.data import incr as work

    session.run(lambda client, printer: work(client, printer, key, by))


@cli.command()
@_bytes_argument("key")
@_json_too
@click.pass_obj
def where(session: Session, key: bytes) -> None:
    """Show where KEY lives: its partition, the owner, the leader, and how each replica does.

    The bytes between the first { and the next } of a key, its tag, decide alone: keys with the same
    tag live together.

    The leader is the replica that answers for the partition; mostly it is the owner's. MATCH is how
    far the leader knows a replica to have the log, LAG how many entries it does not have yet. The
    partition is available while a majority of its voters take part (quorum); if it is not, the
    reason stands there. A cluster in memory has one copy of each key, at the owner.

    Exits with 3 if no node can be reached.
    """
    from kvtwist.cli.cluster import where as work

    peers = session.peers
    session.run(lambda client, printer: work(client, printer, key, peers))


@cli.command()
@click.option("--partitions", "with_partitions", is_flag=True, help="List every partition.")
@_json_too
@click.pass_obj
def status(session: Session, with_partitions: bool) -> None:
    """Show how the members are, and which partitions can be used; if one cannot, why.

    A member OWNS the partitions that it should lead, LEADS those that it does lead, and holds
    REPLICAS of them and others. LAG is by how many log entries it is behind the leader, where that
    is the most; DISK is ok, or what is wrong with it.

    A partition is available while a majority of its replicas take part. It is short of a replica
    that is away or far behind: nothing is lost, but fewer others may fail. One that is not led by
    its owner works as well; leadership goes back when the owner is there again.

    All nodes are asked at once, and waited for one second. --json has everything, for monitors.

    Exits with 0 if all partitions are available, even if a member is down; with 3 if one is not,
    or there is no cluster, or no node answers.
    """
    from kvtwist.cli.status import status as work

    peers = session.peers
    session.run(lambda client, printer: work(client, printer, peers, with_partitions))


@cli.command()
@_json_too
@click.pass_obj
def ring(session: Session) -> None:
    """Draw the ring, and each member's share of it."""
    from kvtwist.cli.cluster import ring as work

    session.run(work)


@cli.command()
@click.argument("nodes", type=click.IntRange(1, 16), default=3, metavar="[N]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The first node's port; the others have the next ones.",
)
@click.option("--memory", is_flag=True, help="Keep data in memory only.")
@click.option(
    "--replicas", type=click.IntRange(1), help="On how many nodes each partition is: 3, or all."
)
@click.option(
    "--partitions", type=click.IntRange(1), help="Into how many partitions the ring is cut."
)
@click.option("--verbose", is_flag=True, help="Show the nodes' logs.")
def local(
    nodes: int,
    port: int,
    memory: bool,
    replicas: int | None,
    partitions: int | None,
    verbose: bool,
) -> None:
    """Start a cluster of N nodes (3 if left out) on this machine, in the foreground.

    Data is kept here, in node-1.kvtwist, node-2.kvtwist and so on; started here again, the cluster
    has it. Prints one line when the cluster is ready; Ctrl-C stops it.
    """
    from kvtwist.cli.local import run_local
    from kvtwist.core.topology import PARTITIONS_DEFAULT, REPLICAS_DEFAULT, Settings
    from kvtwist.errors import ConfigurationError

    if port + nodes - 1 > 65535:
        raise click.UsageError(f"{nodes} ports from {port} on go past 65535: choose another --port")
    try:
        Settings(partitions or PARTITIONS_DEFAULT, replicas or REPLICAS_DEFAULT)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error  # once, and not once for each node
    chosen = {"replicas": replicas, "partitions": partitions}
    options = [f"--{name}={number}" for name, number in chosen.items() if number is not None]
    run_local(nodes, port, [*options, *(["--memory"] if memory else [])], verbose)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@_json_too
@click.pass_obj
def check(session: Session, directory: Path) -> None:
    """Verify all that a stopped node keeps in its data directory DIR.

    Every record is read; its checksum is verified, and that the log, the data and the marks beside
    them fit together. Nothing is changed. Prints how much was checked of each kind, and the first
    problems, one a line.

    Exits with 0 if all is sound, with 1 if there are problems, with 2 if DIR cannot be read as a
    data directory, with 3 if a running node uses it.
    """
    from kvtwist.cli.check import run_check

    sys.exit(run_check(directory, session.printer))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@_json_too
@click.pass_obj
def backup(session: Session, file: Path, force: bool) -> None:
    """Write all data of the running cluster into FILE.

    Each partition is copied as it was at one moment, which is after every write to it that was
    acknowledged when its turn came; the moments of different partitions differ. So keys that share
    a tag are consistent with each other, others need not be: nothing stops while this runs.

    FILE has checksums of everything, and appears only when it is complete and on the disk. All
    nodes have to be up. A cluster in memory (--memory) is refused. `kvcli restore` makes a new
    cluster of it.

    Exits with 3, and leaves no file, if a partition cannot be read; with 74 if FILE cannot be
    written.
    """
    from kvtwist.cli.backup import run_backup

    run_backup(session.peers, session.timeout_seconds, session.printer, file, force)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--id", "name", required=True, metavar="NAME", help="The node's --id.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to make it; it has to be empty, or not to exist.  [default: NAME.kvtwist]",
)
@_json_too
@click.pass_obj
def restore(session: Session, file: Path, name: str, data_dir: Path | None) -> None:
    """Make a new node's data directory out of FILE, which `kvcli backup` has written.

    To be done once for each founder of a new cluster, with the same FILE; then start them all, with
    the --partitions that is printed. They found a cluster with an id of its own, which has all keys
    with their values and versions. Founders that were restored from different files, or of which
    some are empty, do not found, and say why. Clients of the old cluster find another one.

    \b
    kvcli restore monday.backup --id=node-1
    twistd -n kvnode --id=node-1 --addr=:8001 --peers=:8001,:8002,:8003

    Each directory has all of the data until the cluster is founded; then each node keeps its part.
    All of FILE is verified before anything is made of it.

    Exits with 1 if FILE is damaged or cut off, with 2 if it cannot be read or is no backup, or if
    DIR is not empty; with 74 if DIR cannot be written.
    """
    from kvtwist.cli.restore import run_restore

    sys.exit(run_restore(file, data_dir or Path(f"{name}.kvtwist"), name, session.printer))


@cli.command()
@click.option(
    "--workload",
    type=click.Choice(["put", "get", "mixed"]),
    default="mixed",
    show_default=True,
    help="What to send.",
)
@click.option(
    "--read-share",
    type=click.FloatRange(0, 1),
    callback=_finite,
    metavar="SHARE",
    help="Gets among the operations of a mixed workload, from 0 to 1.  [default: 0.5]",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="How many operations wait for their answers at any time.",
)
@click.option(
    "--value-bytes",
    type=click.IntRange(0, 1 << 30),
    default=100,
    show_default=True,
    help="Length of each value.",
)
@click.option(
    "--keys",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="How many different keys.",
)
@click.option(
    "--prefix",
    default="bench:",
    show_default=True,
    help="What the keys begin with, before a number.",
)
@click.option(
    "--distribution",
    type=click.Choice(["uniform", "zipf"]),
    default="uniform",
    show_default=True,
    help="Whether all keys are equally popular, or a few very much so.",
)
@click.option(
    "--zipf-exponent",
    type=click.FloatRange(0, 10),
    callback=_finite,
    metavar="EXPONENT",
    help="How uneven a zipf distribution is.  [default: 0.99, as in YCSB]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    help="End after so long.  [default: 10, unless there is a --count]",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many operations.")
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Another one gives other keys in another order.",
)
@click.option("--no-prepare", is_flag=True, help="Do not write the keys that are to be read.")
@_json_too
@click.pass_obj
def bench(
    session: Session,
    workload: str,
    read_share: float | None,
    in_flight: int,
    value_bytes: int,
    keys: int,
    prefix: str,
    distribution: str,
    zipf_exponent: float | None,
    seconds: float | None,
    count: int | None,
    seed: int,
    no_prepare: bool,
) -> None:
    """Measure the rate and the latencies of gets and puts under load.

    Each of the operations in flight, when it ends, makes room for the next: this shows what the
    cluster can do at most, and how long things take then. --in-flight=1 shows how long they take
    when there is no queue.

    \b
    kvcli bench
    kvcli bench --workload=get --in-flight=256 --seconds=30
    kvcli bench --distribution=zipf --count=100000 --json

    The keys are bench:0, bench:1, and so on; what they held is OVERWRITTEN, and they stay there
    afterwards. All are written before the measurement if there are gets in it. An operation that
    fails is counted under its error, and its time is not. One kvcli uses one processor core; when
    that is busy, run several, and add their rates.

    Ctrl-C ends it early, with a report. Exits with 0 if every operation was carried out (also a get
    that finds no such key), with 5 if the outcome of some put is unknown, else with 3.
    """
    from kvtwist.cli.bench import run_bench
    from kvtwist.cli.workload import Workload

    if read_share is not None and workload != "mixed":
        raise click.UsageError("--read-share goes with --workload=mixed only")
    if zipf_exponent is not None and distribution != "zipf":
        raise click.UsageError("--zipf-exponent goes with --distribution=zipf only")
    shares = {"put": 0.0, "get": 1.0, "mixed": 0.5 if read_share is None else read_share}
    exponent = 0.99 if zipf_exponent is None else zipf_exponent
    wanted = Workload(
        read_share=shares[workload],
        in_flight=in_flight,
        value_bytes=value_bytes,
        keys=keys,
        prefix=os.fsencode(prefix),
        zipf_exponent=exponent if distribution == "zipf" else None,
        seconds=10.0 if seconds is None and count is None else seconds,
        count=count,
        seed=seed,
        prepare=not no_prepare,
    )
    run_bench(session.peers, session.timeout_seconds, session.printer, wanted)


def _value(given: bytes) -> bytes:
    return sys.stdin.buffer.read() if given == b"-" else given


def main() -> None:
    """The console script."""
    try:
        cli.main(prog_name="kvcli", standalone_mode=False)
    except click.UsageError as error:
        if len(sys.argv) == 1 and error.ctx is not None:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(2)
        where = error.ctx.command_path if error.ctx else "kvcli"
        click.echo(f"kvcli: {error.format_message()} (see {where} --help)", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"kvcli: {error.format_message()}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
