"""What a run has found: as a table for people, as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from _picture import Panel, draw
from _workload import KEYS, KEYS_PER_BATCH, OPERATIONS, Cell, Plan, Sample

_ROW_WIDTH = 28
_WIDTH = 17
_SUBTITLE = (
    "One client and all servers on one machine, measured in turns; median. Logarithmic scale: "
    "compare the figures, not the areas."
)


@dataclass(slots=True)
class Report:
    """The figures of one run.

    :ivar name: of its files.
    :ivar heading: of its picture.
    :ivar titles: every series there may be, as it is called in the table.
    :ivar ours: the series that are kvtwist's.
    :ivar facts: about the machine and what was measured (`_machine.facts`).
    :ivar samples: of each series in each cell, one for every round that worked.
    :ivar absent: peers that did not take part, or stopped to, and why.
    """

    name: str
    heading: str
    titles: Mapping[str, str]
    ours: Sequence[str]
    plan: Plan
    facts: Mapping[str, str]
    samples: dict[tuple[str, Cell], list[Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def series(self) -> list[str]:
        """The series that there are figures of, in the order of *titles*."""
        measured = {name for name, _ in self.samples}
        return [name for name in self.titles if name in measured]

    @property
    def peers(self) -> list[str]:
        """Those of them that are not kvtwist's."""
        return [name for name in self.series if name not in self.ours]

    def per_second(self, series: str, cell: Cell) -> float | None:
        """The median over the rounds, if there is any figure."""
        samples = self.samples.get((series, cell))
        return median(sample.per_second for sample in samples) if samples else None

    def ratio(self, ours: str, peer: str, cell: Cell) -> float | None:
        """How many times the peer's speed is ours."""
        mine, theirs = self.per_second(ours, cell), self.per_second(peer, cell)
        return mine / theirs if mine is not None and theirs else None

    def write(self, directory: Path) -> list[Path]:
        """Write table, JSON and picture; where they are."""
        directory.mkdir(parents=True, exist_ok=True)
        contents = {
            f"{self.name}.txt": self.text(),
            f"{self.name}.json": json.dumps(self.data(), indent=2) + "\n",
            f"{self.name}.svg": self.picture(),
        }
        for name, content in contents.items():
            (directory / name).write_text(content, encoding="utf-8")
        return [directory / name for name in contents]

    # -- for people ---------------------------------------------------------------------------

    def text(self) -> str:
        """The tables, and what one must know to read them."""
        blocks = [block for size in self.plan.value_bytes for block in self._blocks(size)]
        return "\n\n".join([*blocks, "\n".join(self._notes())]) + "\n"

    def _blocks(self, value_bytes: int) -> Iterator[str]:
        """For one size of value: the speeds, and each of ours over every peer."""
        title = f"{value_bytes:,}-byte values, op/s"
        yield self.table(title, value_bytes, self.series, ",.0f", self.per_second)
        for ours in self.ours if self.peers else ():
            title = f"{self.titles[ours]} / peer"
            yield self.table(title, value_bytes, self.peers, ".2f", partial(self.ratio, ours))
        yield from self.more_blocks(value_bytes)

    def more_blocks(self, value_bytes: int) -> Iterator[str]:
        """What else there is to show for this size of value."""
        yield from ()

    def table(
        self,
        title: str,
        value_bytes: int,
        columns: Sequence[str],
        form: str,
        figure: Callable[[str, Cell], float | None],
    ) -> str:
        """A row for each cell, a column for each series."""
        lines = [
            title.ljust(_ROW_WIDTH) + "".join(self.titles[name].rjust(_WIDTH) for name in columns)
        ]
        for cell in self.plan.cells(value_bytes):
            row = f"{cell.in_flight:>5} in flight, {cell.operation}".ljust(_ROW_WIDTH)
            figures = (_number(figure(name, cell), form).rjust(_WIDTH) for name in columns)
            lines.append(row + "".join(figures))
        return "\n".join(lines)

    def _notes(self) -> Iterator[str]:
        note = (
            f"Median of {self.plan.rounds} rounds of {self.plan.seconds:g} s each, in turns; "
            f"{KEYS:,} keys."
        )
        if any(name.endswith("-many") for name in self.series):
            batches = sorted({(cell.in_flight, cell.batches_in_flight) for cell in self._cells()})
            calls = ", ".join(f"{count} for {in_flight}" for in_flight, count in batches)
            note += f" Calls of {KEYS_PER_BATCH} keys in flight: {calls}."
        yield note
        spreads = self._spreads()
        yield (
            "Spread between rounds, (max - min) / median: "
            f"{median(spreads):.0%} at the median, {max(spreads):.0%} at most."
        )
        yield from (f"{fact}: {value}" for fact, value in self.facts.items())
        yield from (f"without {name}: {reason}" for name, reason in self.absent.items())
        for (series, cell), samples in self.samples.items():
            if failed := sum(sample.failed for sample in samples):
                where = f"{cell.operation}, {cell.value_bytes:,} bytes, {cell.in_flight} in flight"
                error = next(sample.error for sample in samples if sample.error)
                yield f"{failed:,} failed with {self.titles[series]} ({where}): {error}"

    def _spreads(self) -> list[float]:
        """For each figure, how far its rounds were apart."""
        speeds = [[one.per_second for one in samples] for samples in self.samples.values()]
        return [(max(each) - min(each)) / median(each) for each in speeds if median(each)] or [0.0]

    def _cells(self) -> list[Cell]:
        return [cell for size in self.plan.value_bytes for cell in self.plan.cells(size)]

    # -- for programs -------------------------------------------------------------------------

    def data(self) -> dict[str, object]:
        """All that was measured, single rounds included."""
        return {
            "unit": "operations per second; an operation is one key put or got",
            "machine": dict(self.facts),
            "rounds": self.plan.rounds,
            "seconds_per_measurement": self.plan.seconds,
            "keys": KEYS,
            "keys_per_batch": KEYS_PER_BATCH,
            "series": {name: self.titles[name] for name in self.series},
            "absent": self.absent,
            "results": [self.result(cell) for cell in self._cells()],
        }

    def result(self, cell: Cell) -> dict[str, object]:
        """All about one row."""
        return {
            "operation": cell.operation,
            "value_bytes": cell.value_bytes,
            "in_flight": cell.in_flight,
            "batches_in_flight": cell.batches_in_flight,
            "per_second": {name: rounded(self.per_second(name, cell)) for name in self.series},
            "ratios": {
                ours: {peer: rounded(self.ratio(ours, peer, cell), 3) for peer in self.peers}
                for ours in self.ours
            },
            "rounds": {
                name: [round(sample.per_second) for sample in self.samples.get((name, cell), ())]
                for name in self.series
            },
            "failed": {
                name: sum(sample.failed for sample in self.samples.get((name, cell), ()))
                for name in self.series
            },
        }

    def picture(self) -> str:
        """The speeds as bars, in SVG."""
        return draw(
            self.heading,
            _SUBTITLE,
            {name: self.titles[name] for name in self.series},
            [self._panel(size, each) for size in self.plan.value_bytes for each in OPERATIONS],
            footer=footer(self.facts),
        )

    def _panel(self, value_bytes: int, operation: str) -> Panel:
        cells = [one for one in self.plan.cells(value_bytes) if one.operation == operation]
        groups = {
            f"{cell.in_flight} in flight": {
                name: self.per_second(name, cell) for name in self.series
            }
            for cell in cells
        }
        return Panel(f"{operation}, {value_bytes:,}-byte values, op/s", groups)


def footer(facts: Mapping[str, str]) -> str:
    """What a picture says of the machine."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}; "
        f"kvtwist {facts['kvtwist']}; {facts['date']}"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def rounded(value: float | None, digits: int = 0) -> float | None:
    """To so many digits after the point; a whole number, by default."""
    return None if value is None else round(value, digits or None)
