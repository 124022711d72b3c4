"""``kvcli check``: whether all that a stopped node keeps is what was written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kvtwist.cli.progress import Progress
from kvtwist.cli.run import EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE
from kvtwist.cli.show import Printer, counted, text_of
from kvtwist.errors import KvtwistError, StoreLocked
from kvtwist.storage.check import Problem, Report, check

EXIT_PROBLEMS = 1


def run_check(directory: Path, printer: Printer) -> int:
    """Check *directory*, say what was found, and return the exit code."""
    progress = Progress(sys.stderr)
    try:
        report = check(directory, lambda report: progress.show(_so_far(report)))
    except StoreLocked as error:
        return _failed(printer, error, EXIT_UNAVAILABLE, directory)
    except (KvtwistError, OSError) as error:
        return _failed(printer, error, EXIT_USAGE, directory)
    finally:
        progress.clear()
    if printer.as_json:
        printer.object(_as_object(directory, report))
    else:
        for line in _lines(directory, report):
            printer.line(line)
    return EXIT_PROBLEMS if report.problem_count else EXIT_OK


def _failed(printer: Printer, error: KvtwistError | OSError, status: int, directory: Path) -> int:
    said = str(error)
    if isinstance(error, OSError):
        said = f"{error.filename or directory}: {error.strerror}"
    if printer.as_json:
        printer.object({"error": type(error).__name__, "message": said})
    printer.error(said)
    return status


def _so_far(report: Report) -> str:
    return f"{counted(report.keys, 'key')}, {counted(report.read_bytes, 'byte')} checked"


def _counts(report: Report) -> dict[str, int]:
    """How many there are of each kind; more than the node has, if a snapshot broke off."""
    data = [data for group in report.groups.values() for data in group.data.values()]
    return {
        "groups": len(report.groups),
        "entries": sum(group.entries for group in report.groups.values()),
        "records": sum(each.records for each in data),
        "sessions": sum(len(each.sessions) for each in data),
        "answers": sum(each.answers for each in data),
        "keys": report.keys,
        "bytes": report.read_bytes,
    }


def _as_object(directory: Path, report: Report) -> dict[str, Any]:
    return {
        "directory": str(directory),
        "sound": not report.problem_count,
        "complete": report.is_whole,
        "checked": _counts(report),
        "problem_count": report.problem_count,
        "problems": [
            {"kind": each.kind, "group": each.group, "problem": each.what}
            for each in report.problems
        ],
    }


def _lines(directory: Path, report: Report) -> list[str]:
    counts = _counts(report)
    width = max(len(f"{count:,}") for count in counts.values())
    lines = [f"{name:<9} {count:>{width},}" for name, count in counts.items()]
    if not report.problem_count:
        return [*lines, "", f"{directory} is sound"]
    lines += ["", *(_line_of(each) for each in report.problems)]
    if more := report.problem_count - len(report.problems):
        lines.append(f"and {counted(more, 'more problem')}")
    if not report.is_whole:
        lines.append("not everything could be read: whether it fits together was not looked into")
    return [*lines, "", f"{directory} is damaged: {counted(report.problem_count, 'problem')}"]


def _line_of(problem: Problem) -> str:
    where = problem.kind if problem.group is None else f"group {problem.group}, {problem.kind}"
    return text_of(" ".join(f"{where}: {problem.what}".split()).encode())
