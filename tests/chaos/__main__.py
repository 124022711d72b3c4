"""Real nodes under real faults: one run, seeded.

python -m tests.chaos --seconds 180 --seed 7
python -m tests.chaos --seed 7 --schedule
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.chaos.campaign import Campaign, Plan, run_to_end
from tests.chaos.cluster import Cluster
from tests.chaos.evidence import FILE, read, write
from tests.chaos.network import Network, NotPermittedError
from tests.chaos.report import Report
from tests.chaos.schedule import Kind, draw
from tests.chaos.verdict import wrong_with

_STATUS = {"PASSED": 0, "FAILED": 1, "INVALID": 3}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        epilog="Status 0: passed; 1: failed; 3: invalid, too little happened.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="of faults (180)")
    parser.add_argument("--seed", type=int, help="of the schedule; another one each time if absent")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument(
        "--per-second", type=float, default=600.0, help="operations of all clients (600)"
    )
    parser.add_argument(
        "--per-second-min", type=float, default=200.0, help="with fewer it is invalid (200)"
    )
    parser.add_argument(
        "--faults", nargs="+", metavar="NAME", choices=[kind.name for kind in Kind], help="these"
    )
    parser.add_argument(
        "--memory", action="store_true", help="nodes that keep nothing: this has to fail"
    )
    parser.add_argument("--no-netns", action="store_true", help="do not cut the network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--evidence",
        type=Path,
        metavar="DIR",
        help="leave logs, data and history there; a run that fails always leaves them somewhere",
    )
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", help=f"judge the {FILE} of another run again, only"
    )
    parser.add_argument("--schedule", action="store_true", help="show the schedule only")
    return parser.parse_args()


def main() -> int:
    """The exit status."""
    chosen = _arguments()
    if chosen.judge is not None:
        wrong = wrong_with(read(chosen.judge), chosen.partitions)
        print(*(wrong or ["PASSED"]), sep="\n")
        return _STATUS["FAILED"] if wrong else 0
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with ExitStack() as stack:
        network, why_not = _network(chosen, stack)
        kinds = [Kind[name] for name in chosen.faults] if chosen.faults else list(Kind)
        schedule = draw(
            seed,
            chosen.seconds,
            chosen.nodes,
            chosen.partitions,
            has_network=network is not None,
            kinds=kinds,
        )
        plan = Plan(
            seed,
            chosen.seconds,
            chosen.nodes,
            chosen.clients,
            chosen.partitions,
            pace=chosen.per_second / chosen.clients / chosen.partitions,
            per_second_min=chosen.per_second_min,
            schedule=schedule,
            options=("--memory",) if chosen.memory else (),
            no_network=why_not,
        )
        if chosen.schedule:
            print(*schedule, sep="\n")
            return 0
        report = _run(plan, network, chosen.evidence, stack)
    if chosen.json:
        chosen.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    print(report)
    return _STATUS[report.verdict]


def _network(chosen: argparse.Namespace, stack: ExitStack) -> tuple[Network | None, str]:
    """The network, and why there is none."""
    if chosen.no_netns:
        return None, "not cut (--no-netns)"
    try:
        network = Network(chosen.nodes + 1)
    except NotPermittedError as error:
        print(f"THE NETWORK IS NOT CUT: {error}", flush=True)
        return None, f"NOT CUT: {error}"
    stack.callback(network.close)
    network.enter()
    return network, ""


def _run(plan: Plan, network: Network | None, evidence: Path | None, stack: ExitStack) -> Report:
    from twisted.internet import reactor

    from kvtwist.wire.clock import make_monotonic

    make_monotonic(reactor)
    options = (f"--partitions={plan.partitions}", *plan.options)
    cluster = Cluster(plan.nodes, network, options)
    stack.callback(cluster.close)
    print(f"data in {cluster.directory}", flush=True)
    cluster.found()
    # Made before that is said: what interrupts it may be lost in a Deferred of its client's.
    campaign = Campaign(reactor, plan, cluster, network, partial(print, flush=True))
    print(f"seed {plan.seed}: {len(plan.schedule)} faults in {plan.seconds:g} s", flush=True)
    try:
        run_to_end(reactor, campaign.run)
        campaign.stop()
        report = campaign.judge()
    except Exception:
        print(f"evidence: {_keep(cluster, campaign, evidence)}", flush=True)
        raise
    if report.verdict == "FAILED" or evidence is not None:
        print(f"evidence: {_keep(cluster, campaign, evidence)}", flush=True)
    return report


def _keep(cluster: Cluster, campaign: Campaign, evidence: Path | None) -> Path:
    """Leave everything that may help to find the cause."""
    if evidence is None:
        evidence = Path(tempfile.mkdtemp(prefix=f"kvtwist-evidence-{campaign.report.seed}-"))
    cluster.keep(evidence)
    write(evidence / FILE, campaign.history.recorder.operations())
    return evidence


def _interrupted(number: int, _: object) -> None:
    """Everything is ended and removed on the way out. (`run_to_end` has its own way.)"""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
