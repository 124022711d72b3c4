"""Short campaigns of real nodes under real faults; `tests.chaos` has the long ones."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.nodes import CHECKOUT, Processes

SECONDS_MAX = 150.0
PER_SECOND_MIN = 10
"""Of 200 that are asked for: this may be a busy machine, on which processes start slowly."""

EARLY = """
import os, signal, sys, threading, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.chaos.__main__ import _interrupted
from tests.chaos.campaign import run_to_end

async def work():
    await Deferred()

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, _interrupted)
# One that may take the signal in the main thread's place.
threading.Thread(target=time.sleep, args=(10,), daemon=True).start()
reactor.addSystemEventTrigger("before", "startup", os.kill, os.getpid(), int(sys.argv[1]))
try:
    run_to_end(reactor, work)
except KeyboardInterrupt:
    print("interrupted")
"""


class ChaosTests(SynchronousTestCase):
    """Three nodes, four clients."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="kvtwist-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def run_campaign(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """A campaign's exit status and report."""
        report = self.directory / "report.json"
        size = ("--nodes=3", "--clients=4", "--partitions=8", "--per-second=200", "--no-netns")
        minimum = f"--per-second-min={PER_SECOND_MIN}"
        command = (sys.executable, "-m", "tests.chaos", *size, minimum, f"--json={report}")
        try:
            done = subprocess.run(
                (*command, *arguments),
                cwd=CHECKOUT,
                capture_output=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self.fail(f"it did not end: {error.output!r}")
        self.said = (done.stdout + done.stderr).decode(errors="replace")
        self.assertTrue(report.exists(), self.said)
        said: dict[str, Any] = json.loads(report.read_text())
        return done.returncode, said

    def assert_passed(self, status: int, report: dict[str, Any]) -> None:
        """It did, and that means something (X1)."""
        self.assertEqual((status, report["verdict"]), (0, "PASSED"), self.said)
        self.assertGreater(report["outcomes"]["answered"], PER_SECOND_MIN * report["seconds"])
        self.assertIn(f"{sum(report['operations'].values()):,} operations", report["judged"])
        self.assertRegex(report["remains"], r"^[1-9]\d* replicas, [1-9][\d,]* committed entries")

    def test_short(self) -> None:
        """Promises 1 and 2: leaders are killed, nodes frozen, all killed at once; no acknowledged
        write is lost, no read is stale."""
        faults = ("KILL_LEADER", "FREEZE_LEADER", "KILL_ALL")
        status, report = self.run_campaign("--seconds=20", "--seed=3", "--faults", *faults)
        self.assert_passed(status, report)
        self.assertEqual(
            {*report["faults"]},
            {"kill -9 of a leader", "SIGSTOP of a leader", "kill -9 of all nodes"},
        )

    def test_nodes_that_keep_nothing(self) -> None:
        """X2: what a node in memory loses when it is killed is found; else a campaign that passes
        would say nothing."""
        status, report = self.run_campaign(
            "--memory",
            "--seconds=4",
            "--seed=1",
            "--faults",
            "KILL",
            f"--evidence={self.directory}",
        )
        self.assertEqual((status, report["verdict"]), (1, "FAILED"), self.said)
        self.assertIn("not linearizable", report["wrong"][0])
        self.assertEqual(report["problems"], [])

    def test_all_at_once(self) -> None:
        """Promise 1: all nodes are killed; every acknowledged write is there."""
        status, report = self.run_campaign("--seconds=8", "--seed=1", "--faults", "KILL_ALL")
        self.assert_passed(status, report)
        self.assertEqual(report["faults"], {"kill -9 of all nodes": 1})

    def test_rolling_restart(self) -> None:
        """T11: each node in turn is told to stop, and started again. No client sees an error, with
        the retries that it makes by itself."""
        status, report = self.run_campaign(
            "--seconds=10", "--seed=1", "--faults", "RESTART_ROLLING"
        )
        self.assert_passed(status, report)
        self.assertEqual(report["faults"], {"rolling restart": 1})
        self.assertEqual(report["errors"], {}, self.said)

    def test_interrupted(self) -> None:
        """Whoever ends a campaign, by Ctrl-C or by force, has no nodes and no data left of it."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            processes = Processes(nodes=0)
            self.addCleanup(processes.close)
            command = (sys.executable, "-m", "tests.chaos", "--no-netns", "--nodes=3")
            campaign = processes.run(command, "campaign")
            where = Path(campaign.wait_for("data in ").split()[-1])
            campaign.wait_for("faults in")
            pids = [int(path.read_text()) for path in where.glob("kvnode-*.pid")]
            self.assertEqual(len(pids), 3)
            campaign.signal(number)
            campaign.wait()
            self.assertEqual([pid for pid in pids if self.lives(pid)], [], number)
            if number == signal.SIGKILL:
                shutil.rmtree(where)
            self.assertFalse(where.exists(), number)
            processes.close()

    def test_interrupted_while_the_reactor_starts(self) -> None:
        """It has no handlers of its own yet, and swallows what those before raise."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            processes = Processes(nodes=0)
            self.addCleanup(processes.close)
            program = processes.run((sys.executable, "-c", EARLY, str(number.value)), "early")
            program.wait()
            self.assertEqual(program.output, "interrupted\n", number)

    def lives(self, pid: int) -> bool:
        """Whether a process is still there in a while."""
        for _ in range(100):
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return False
            if state in "ZX":
                return False
            time.sleep(0.02)
        return True
