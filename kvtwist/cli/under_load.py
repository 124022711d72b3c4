"""The command of ``kvcli`` that measures, and its help."""

from __future__ import annotations

import os

import click

from kvtwist.cli.group import Session, cli, finite, json_too


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
    callback=finite,
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
    callback=finite,
    metavar="EXPONENT",
    help="How uneven a zipf distribution is.  [default: 0.99, as in YCSB]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
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
@json_too
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
