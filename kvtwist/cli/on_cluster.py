"""The commands of ``kvcli`` that show a cluster, or start one, and their help."""

from __future__ import annotations

import click

from kvtwist.cli.group import Session, bytes_argument, cli, json_too
from kvtwist.core.address import DEFAULT_PORT


@cli.command()
@bytes_argument("key")
@json_too
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
@json_too
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
@json_too
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
