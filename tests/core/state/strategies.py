"""Hypothesis strategies for what the state machine's formats can say."""

from __future__ import annotations

from hypothesis import strategies as st

from kvtwist.core.state.answers import (
    Advanced,
    Answer,
    BelowMark,
    BeyondWindow,
    Expired,
    GenerationSet,
    NotWritten,
    SessionClosed,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
)
from kvtwist.core.state.commands import (
    Advance,
    CloseSession,
    Command,
    Condition,
    Expire,
    OpenSession,
    SetGeneration,
    Write,
)
from kvtwist.core.state.operations import Delete, Get, Increment, Operation, Put
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Found,
    Mismatch,
    NotANumber,
    OutOfRange,
    Unchanged,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
data = st.binary(max_size=5)
versions = st.none() | u64

operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, data, data, u64, versions),
    st.builds(Delete, data, versions),
    st.builds(Increment, data, int64),
    st.builds(Get, data),
)
conditions = st.builds(Condition, data, u64)


def tuples_of(parts: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """A few of them."""
    return st.lists(parts, max_size=3).map(tuple)


writes = st.builds(
    Write, u64, u64, u64, u64, u64, tuples_of(operations), tuples_of(conditions), u32
)
commands: st.SearchStrategy[Command] = st.one_of(
    writes,
    st.builds(OpenSession, u64, u64, u64),
    st.builds(CloseSession, u64, u64, u64),
    st.builds(Expire, u64, u64, u32),
    st.builds(Advance, u64),
    st.tuples(u64, u64, u64)
    .filter(lambda numbers: numbers[1] < numbers[2])
    .map(lambda numbers: SetGeneration(*numbers)),
)

seen = st.one_of(
    st.tuples(st.just(0), st.none()), st.tuples(st.integers(1, 2**64 - 1), st.none() | data)
)
u16 = st.integers(0, 2**16 - 1)
results = st.one_of(
    st.builds(Changed, u64),
    st.builds(Unchanged),
    st.builds(Counted, u64, int64),
    seen.map(lambda pair: Found(*pair)),
)
failures = st.one_of(
    st.builds(lambda index, pair: Mismatch(index, *pair), u16, seen),
    st.builds(NotANumber, u16, u64),
    st.builds(OutOfRange, u16, u64),
)
answers: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Written, tuples_of(results)),
    st.builds(NotWritten, tuples_of(failures)),
    st.builds(SessionOpened, u64),
    st.builds(SessionClosed),
    st.builds(Expired, u32, u32, st.booleans()),
    st.builds(Advanced, u64),
    st.builds(GenerationSet, u64),
    st.builds(WrongGeneration, u64, u64),
    st.builds(UnknownSession, u64),
    st.builds(BelowMark, u64, u64),
    st.builds(BeyondWindow, u64, u64),
    st.builds(TooManySessions, u64),
    st.builds(TooManyAnswers, u64),
)
