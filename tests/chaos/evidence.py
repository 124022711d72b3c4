"""A history in a file, a line of JSON for each operation: to be looked at, and judged again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.linearizability.history import Answer, Kind, Operation, Outcome

FILE = "history.jsonl"


def write(path: Path, operations: Iterable[Operation]) -> None:
    """Write all of them."""
    with path.open("w") as file:
        for each in operations:
            file.write(json.dumps(_line(each)) + "\n")


def read(path: Path) -> list[Operation]:
    """What `write` has written."""
    return [_operation(json.loads(line)) for line in path.read_text().splitlines()]


def _line(operation: Operation) -> dict[str, Any]:
    answer = operation.answer
    line: dict[str, Any] = {
        "client": operation.client,
        "key": operation.key.decode(),
        "kind": operation.kind.value,
        "invoked": operation.invoked,
        "returned": operation.returned,
        "outcome": operation.outcome.value,
        "value": _text(operation.value),
        "version": operation.version,
        "amount": operation.amount,
    }
    if answer is not None:
        line["answer"] = [answer.done, answer.version, _text(answer.value)]
    return line


def _operation(line: dict[str, Any]) -> Operation:
    answer = line.get("answer")
    return Operation(
        line["client"],
        line["key"].encode(),
        Kind(line["kind"]),
        line["invoked"],
        line["returned"],
        Outcome(line["outcome"]),
        None if answer is None else Answer(answer[0], answer[1], _bytes(answer[2])),
        _bytes(line["value"]),
        line["version"],
        line["amount"],
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
