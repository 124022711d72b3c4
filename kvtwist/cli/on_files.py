"""The commands of ``kvcli`` that are about what is kept in files, and their help."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kvtwist.cli.group import Session, cli, json_too


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@json_too
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
@json_too
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
@json_too
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
