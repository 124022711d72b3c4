"""The protocol: every command that nodes and clients say to each other.

Boxes are stock AMP. Whoever imports these classes can talk to a node with
``twisted.protocols.amp`` and nothing else; short keys and values are plain ``amp.String``s to it.

What all commands share:

* ``trace`` (optional): bytes that the node passes on when it forwards, for the sender's own use.
* ``keyspace`` (optional, 0 when missing): reserved; any other number is refused.
* Arguments that a receiver does not know are ignored. A command that it does not know, an argument
  that is missing or malformed and a box that is too large are answered with an error, and the
  connection lives on.
* An error's description is one line of text; typed details, if the error has any, follow on a
  second line as JSON (`kvtwist.wire.failures`).

The commands on data share these as well:

* ``timeout_ms`` (optional): what is left of the request's time when it is sent. The node answers,
  or fails, within it.
* ``forwarded`` (optional): said by a node that passes a request on. It will not be passed on again.

Their answers say in ``applied`` what they have seen: the cluster's id (16 bytes), and then, for
each partition that was read or written, its number (2, big-endian) and how far it had been applied
(8, big-endian). That is 26 bytes for one key. Each partition stands there once, in any order; a
node that has others carry out a part joins their marks to its own (`kvtwist.wire.applied`). A
client that shows the highest that it has seen of a partition can be given reads that are no older.
An answer may have no ``applied``, and has none when nothing was read or written.

``leader`` in an answer about one key is the name of the member that the request was passed on to,
since it leads the key's partition: it can be asked at once the next time.

**Exactly once.** A write that is sent twice is carried out twice, so whoever gets no answer to one
must not send it again; unless it carries ``once``, which names it: 32 bytes, four numbers of eight,
big-endian: ``generation``, ``session``, ``seq``, and the lowest seq that is unanswered
(`kvtwist.wire.once`). Session and generation are `OpenSession`'s answer for a key of the same
partition; a session lives in one partition. The sender counts its writes there with ``seq``, one
more for each. The partition carries each seq out once, and remembers what it has answered, so a
write may be sent again with the seq that it has, and gets the same answer; only that a ``value``
which was seen is not remembered: it is missing, though ``version`` is not 0. What the mark (the
lowest unanswered seq) has passed is forgotten, and refused. No seq may be 1,024 or more above it.

Refusals speak of the one request. ``SESSION_REFUSED`` with ``reason`` "unknown" (the session was
idle for too long, or never opened): if no attempt before may have been carried out, open another
session and give the write a seq of that; else its outcome is unknown. The same after "below_mark"
and "beyond_window"; after "too_many_answers" later, with the same seq. ``WRONG_GENERATION``: send
it again, with the same seq and the ``generation`` that the error names.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.protocols import amp

from kvtwist.errors import (
    DiskFull,
    HelloRefused,
    MalformedRequest,
    NodeFault,
    NotANumber,
    NotLeader,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    Refused,
    SessionRefused,
    TooLarge,
    Unavailable,
    WrongGeneration,
)
from kvtwist.wire.arguments import Blob, Blobs, Int64, Natural, Numbers, Rows

PROTOCOL_VERSION = 1
ANSWER_BYTES_MAX = 1 << 20
"""How many bytes of values an answer to `GetMany` may have; the first value may be longer."""
DESCRIPTIONS_MAX = 256
"""How many replicas an answer to `DescribeReplicas` may have."""
REQUEST_TIMEOUT_MS = 5000
"""How long a request may take when it does not say."""
REQUEST_TIMEOUT_MS_MAX = 60_000
"""And at most, whatever it says."""

_Pairs = list[tuple[bytes, amp.Argument]]
_Errors = dict[type[Exception], bytes]

_COMMON: _Pairs = [
    (b"trace", Blob(optional=True)),
    (b"keyspace", Natural(optional=True)),
]
_DATA: _Pairs = [
    *_COMMON,
    (b"timeout_ms", Natural(optional=True)),
    (b"forwarded", amp.Boolean(optional=True)),
]
_MEMBER: _Pairs = [
    (b"name", amp.Unicode()),
    (b"identity", amp.Unicode()),
    (b"address", amp.Unicode()),
]
_SETTINGS: _Pairs = [
    (b"partitions", Natural()),
    (b"replicas", Natural()),
    (b"tokens_per_member", Natural()),
    (b"durable", amp.Boolean()),
]


_SEEN: _Pairs = [(b"applied", Blob(optional=True))]
_OF_ONE_KEY: _Pairs = [*_SEEN, (b"leader", amp.Unicode(optional=True))]


def _errors(*classes: type[Any]) -> _Errors:
    return {cls: cls.code.encode() for cls in classes}


_ONCE: _Pairs = [(b"once", Blob(optional=True))]

_ANY_ERRORS = _errors(MalformedRequest, TooLarge, Refused, Overloaded, NodeFault)
_DATA_ERRORS = _ANY_ERRORS | _errors(Unavailable, DiskFull, NotLeader, OutcomeUnknown)
_WRITE_ERRORS = _DATA_ERRORS | _errors(SessionRefused, WrongGeneration)


class Hello(amp.Command):
    """Say who one is; the first command on a connection between nodes, or from our own client.

    Stock AMP clients may leave it out. Both ends send the same facts. A mismatch is answered with
    ``HELLO_REFUSED``, one line that says what differs, and the connection is closed.

    ``version_min``/``version_max`` bound the protocol versions spoken. ``cluster_id``, ``name``,
    ``identity`` and ``address`` are empty where one has none: a client has no name, a node that has
    not been founded no cluster. ``expected_identity`` is who the sender wants to reach; empty:
    anyone. ``started_ms`` is when the sender was started, by its wall clock, in ms since 1970; it
    only decides which of two nodes with one name has to go. ``features`` names optional abilities;
    unknown ones are ignored. ``auth`` is reserved, and empty.
    """

    arguments: ClassVar[_Pairs] = [
        *_COMMON,
        (b"version_min", Natural()),
        (b"version_max", Natural()),
        (b"cluster_id", amp.Unicode()),
        (b"name", amp.Unicode()),
        (b"identity", amp.Unicode()),
        (b"address", amp.Unicode()),
        (b"expected_identity", amp.Unicode()),
        (b"started_ms", Natural()),
        (b"features", amp.ListOf(amp.Unicode())),
        (b"auth", Blob()),
    ]
    response: ClassVar[_Pairs] = [pair for pair in arguments if pair not in _COMMON]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(HelloRefused)


class Ping(amp.Command):
    """Ask for a sign of life; the answer is empty."""

    arguments: ClassVar[_Pairs] = [*_COMMON]
    response: ClassVar[_Pairs] = []
    errors: ClassVar[_Errors] = _ANY_ERRORS


class Fragment(amp.Command):
    """A part of a box that is too large to be sent in one (`kvtwist.wire.fragments`).

    Only for a peer that has said ``fragments`` among the features of its `Hello`; there is no
    answer. ``piece`` is a part of the bytes of a box, a request or an answer; ``number`` counts the
    parts of one box from 0, and ``last`` marks the one that ends it. What the parts make is treated
    like a box that came whole. Other boxes may come between the fragments of one, but no fragments
    of another. Fragments that make no box end the connection.
    """

    arguments: ClassVar[_Pairs] = [
        (b"number", Natural()),
        (b"last", amp.Boolean()),
        (b"piece", Blob()),
        *_COMMON,
    ]
    response: ClassVar[_Pairs] = []
    errors: ClassVar[_Errors] = {}
    requiresAnswer = False


class Found(amp.Command):
    """Ask a founder for its view of the founding (`kvtwist.core.founding.View`).

    The answer is who it is, its ``--peers`` and settings, the ``cluster_id`` of the record that it
    would found or has founded (empty while it waits for somebody), and, once ``founded``, the
    record's ``members``. ``restored`` is the digest of the backup that it was restored from, empty
    or missing if it was not: founders of different ones do not found together.
    """

    arguments: ClassVar[_Pairs] = [*_COMMON]
    response: ClassVar[_Pairs] = [
        *_MEMBER,
        *_SETTINGS,
        (b"founders", amp.ListOf(amp.Unicode())),
        (b"cluster_id", amp.Unicode()),
        (b"founded", amp.Boolean()),
        (b"members", amp.AmpList(_MEMBER)),
        (b"restored", amp.Unicode(optional=True)),
    ]
    errors: ClassVar[_Errors] = _ANY_ERRORS


class DescribeTopology(amp.Command):
    """Ask for the topology: who the members are, and which of them have which partition.

    Row *p* of ``placement`` lists partition *p*'s replicas, its owner first, as indexes into
    ``members``. ``leaders`` says who leads each partition, as far as the asked node knows: 0 for
    nobody, else one more than an index into ``members``.
    """

    arguments: ClassVar[_Pairs] = [*_COMMON]
    response: ClassVar[_Pairs] = [
        (b"cluster_id", amp.Unicode()),
        (b"epoch", Natural()),
        *_SETTINGS,
        (b"members", amp.AmpList(_MEMBER)),
        (b"placement", Rows()),
        (b"leaders", Numbers(optional=True)),
    ]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable)


class Status(amp.Command):
    """Ask a node how it is.

    ``software`` is its kvtwist version, ``uptime_ms`` how long it has been running. ``cluster_id``
    is empty and ``epoch`` 0 until it belongs to a cluster; ``waiting_for`` says whom it waits for
    till then. ``key_count`` and ``owned`` count the keys that it holds and the partitions that it
    owns. ``unreachable`` lists the peers that it has no connection to, with the reason.

    A node that keeps its data on disk also says of how many partitions it holds a replica
    (``held``) and how many of those lead (``leads``), and how its disk is: ``condition`` is
    ``open``, or what is wrong, and ``trouble`` says more of that.
    """

    arguments: ClassVar[_Pairs] = [*_COMMON]
    response: ClassVar[_Pairs] = [
        *_MEMBER,
        (b"software", amp.Unicode()),
        (b"uptime_ms", Natural()),
        (b"cluster_id", amp.Unicode()),
        (b"epoch", Natural()),
        (b"key_count", Natural()),
        (b"owned", Natural()),
        (b"waiting_for", amp.ListOf(amp.Unicode())),
        (b"unreachable", amp.ListOf(amp.Unicode())),
        (b"leads", Natural(optional=True)),
        (b"held", Natural(optional=True)),
        (b"condition", amp.Unicode(optional=True)),
        (b"trouble", amp.Unicode(optional=True)),
    ]
    errors: ClassVar[_Errors] = _ANY_ERRORS


class DescribeReplicas(amp.Command):
    """Ask a node for the Raft replicas that it holds; one of a cluster in memory holds none.

    It tells of those in groups ``first`` and up, at most ``count`` (256 if that is less) of them in
    the order of their groups; ``following`` is what to ask for next as ``first``, 0 if that was
    all.

    The answer is two tables, each a set of columns of equal length. The first has a row for each
    replica: ``groups``, ``group_partitions`` (0: it is no partition's; else one more than the
    partition), ``replica_ids``, ``roles`` (0 follower, 1 pre-candidate, 2 candidate, 3 leader),
    ``terms``, ``leader_ids`` (the replica that it takes for the leader; 0: it knows none),
    ``commit_indexes``, ``applied_indexes``, ``last_indexes``, ``compacted_indexes``,
    ``replica_flags`` (1: the group has fallen silent, since nothing happens in it; 2: the replica
    is a voter; 4: it has committed an entry of its term; added up), ``key_counts`` and
    ``byte_counts`` (keys and values).

    The second has a row for each other replica in the configuration of one of the first table:
    ``other_rows`` (of that one in the first table, from 0), ``other_ids``, ``other_members`` (0:
    not known; else one more than the member's index in `DescribeTopology`'s), ``other_flags`` (1:
    it is a voter; 2: the one of the first table leads, and the rest of this row is what it knows of
    the other; 4: that has been heard of lately), ``match_indexes`` (up to where it has the log),
    ``sendings`` (0: it is being found out how far that is, 1: it is sent entries, 2: it needs a
    snapshot) and ``snapshot_indexes`` (of the snapshot that is on its way to it; 0: none is).
    """

    arguments: ClassVar[_Pairs] = [(b"first", Natural()), (b"count", Natural()), *_COMMON]
    response: ClassVar[_Pairs] = [
        (b"following", Natural()),
        (b"groups", Numbers()),
        (b"group_partitions", Numbers()),
        (b"replica_ids", Numbers()),
        (b"roles", Numbers()),
        (b"terms", Numbers()),
        (b"leader_ids", Numbers()),
        (b"commit_indexes", Numbers()),
        (b"applied_indexes", Numbers()),
        (b"last_indexes", Numbers()),
        (b"compacted_indexes", Numbers()),
        (b"replica_flags", Numbers()),
        (b"key_counts", Numbers()),
        (b"byte_counts", Numbers()),
        (b"other_rows", Numbers()),
        (b"other_ids", Numbers()),
        (b"other_members", Numbers()),
        (b"other_flags", Numbers()),
        (b"match_indexes", Numbers()),
        (b"sendings", Numbers()),
        (b"snapshot_indexes", Numbers()),
    ]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable)


class Get(amp.Command):
    """Read one key.

    ``version`` is 0, and ``value`` missing, when there is no such key.
    """

    arguments: ClassVar[_Pairs] = [(b"key", Blob()), *_DATA]
    response: ClassVar[_Pairs] = [
        (b"version", Natural()),
        (b"value", Blob(optional=True)),
        *_OF_ONE_KEY,
    ]
    errors: ClassVar[_Errors] = _DATA_ERRORS


class Put(amp.Command):
    """Write ``value`` under one ``key``, whatever was there.

    The answer is its new ``version``.
    """

    arguments: ClassVar[_Pairs] = [(b"key", Blob()), (b"value", Blob()), *_ONCE, *_DATA]
    response: ClassVar[_Pairs] = [(b"version", Natural()), *_OF_ONE_KEY]
    errors: ClassVar[_Errors] = _WRITE_ERRORS


class Delete(amp.Command):
    """Remove one key; only at ``version``, if one is given.

    ``done`` says whether it was removed; if not, ``version`` and ``value`` are what was seen, with
    version 0 for no such key. If it was, ``version`` is the version of the removal.
    """

    arguments: ClassVar[_Pairs] = [
        (b"key", Blob()),
        (b"version", Natural(optional=True)),
        *_ONCE,
        *_DATA,
    ]
    response: ClassVar[_Pairs] = [
        (b"done", amp.Boolean()),
        (b"version", Natural()),
        (b"value", Blob(optional=True)),
        *_OF_ONE_KEY,
    ]
    errors: ClassVar[_Errors] = _WRITE_ERRORS


class CompareAndSet(amp.Command):
    """Write one key only if its version is ``version`` (0: only if there is no such key).

    ``done`` says whether it was written, and then ``version`` is the new one; if not, ``version``
    and ``value`` are what was seen.
    """

    arguments: ClassVar[_Pairs] = [
        (b"key", Blob()),
        (b"value", Blob()),
        (b"version", Natural()),
        *_ONCE,
        *_DATA,
    ]
    response: ClassVar[_Pairs] = [
        (b"done", amp.Boolean()),
        (b"version", Natural()),
        (b"value", Blob(optional=True)),
        *_OF_ONE_KEY,
    ]
    errors: ClassVar[_Errors] = _WRITE_ERRORS


class Increment(amp.Command):
    """Add ``delta``, which may be negative, to the number under one ``key``; a missing key is 0.

    Numbers are the shortest decimal form of whole ones from -2^63 to 2^63 - 1. The answer is the
    new ``version`` and the ``total``, what the number is now. The errors ``NOT_A_NUMBER`` and
    ``OUT_OF_RANGE`` (of the sum) say at which ``version`` what was there is, and stays.
    """

    arguments: ClassVar[_Pairs] = [(b"key", Blob()), (b"delta", Int64()), *_ONCE, *_DATA]
    response: ClassVar[_Pairs] = [(b"version", Natural()), (b"total", Int64()), *_OF_ONE_KEY]
    errors: ClassVar[_Errors] = _WRITE_ERRORS | _errors(NotANumber, OutOfRange)


class OpenSession(amp.Command):
    """Open a session in the partition that ``key`` belongs to, for writes that carry ``once``.

    The answer has the number of the ``session``, and the ``generation`` of the partition; both go
    into ``once``. The session ends when no write was sent in it for ``idle_ms``, at most a day. One
    that was opened and is not used does no harm, so this may be sent again. A partition has 4,096
    at most, else the error is ``SESSION_REFUSED`` with ``reason`` "too_many_sessions".

    A cluster in memory has no sessions: it answers 0, and writes there go without ``once``.
    """

    arguments: ClassVar[_Pairs] = [(b"key", Blob()), (b"idle_ms", Natural()), *_DATA]
    response: ClassVar[_Pairs] = [
        (b"session", Natural()),
        (b"generation", Natural()),
        *_OF_ONE_KEY,
    ]
    errors: ClassVar[_Errors] = _WRITE_ERRORS


class GetMany(amp.Command):
    """Read many keys, each on its own: no snapshot.

    The answer has as many ``versions``, ``values`` and ``errors`` as there are ``keys``, in their
    order. ``values`` has nothing where there is no such key. ``errors`` has nothing where all went
    well, else an AMP error's code, a zero byte, and its description; all of it is left out when all
    went well with all keys. Keys whose values make an answer too long (`ANSWER_BYTES_MAX`) have the
    error ``OVERLOADED``: ask for them again.
    """

    arguments: ClassVar[_Pairs] = [(b"keys", Blobs()), *_DATA]
    response: ClassVar[_Pairs] = [
        (b"versions", Numbers()),
        (b"values", Blobs()),
        (b"errors", Blobs(optional=True)),
        *_SEEN,
    ]
    errors: ClassVar[_Errors] = _DATA_ERRORS


class PutMany(amp.Command):
    """Write many keys, each on its own: not atomic.

    There are as many ``values`` as ``keys``. The answer has as many ``versions`` and ``errors``, as
    in `GetMany`; the version is 0 where there is an error. ``onces``, if it is there, is the
    ``once`` of each key, joined: 32 bytes for every one.
    """

    arguments: ClassVar[_Pairs] = [
        (b"keys", Blobs()),
        (b"values", Blobs()),
        (b"onces", Blob(optional=True)),
        *_DATA,
    ]
    response: ClassVar[_Pairs] = [
        (b"versions", Numbers()),
        (b"errors", Blobs(optional=True)),
        *_SEEN,
    ]
    errors: ClassVar[_Errors] = _WRITE_ERRORS


class OpenBackup(amp.Command):
    """Begin to read all of one ``partition``, as it is at one moment, from the node that owns it.

    That moment is after all writes to it that were answered before. The answer names it with
    ``backup``, for this connection only; ``applied_index`` is the index of the last entry in it,
    ``key_count`` and ``data_bytes``, keys and values added up, say how much there is. A node has
    few of these open at a time, else the error is ``OVERLOADED``. It closes one that is not read
    for 30 s, that lasts 15 min, or whose connection is lost. A cluster in memory refuses.
    """

    arguments: ClassVar[_Pairs] = [(b"partition", Natural()), *_COMMON]
    response: ClassVar[_Pairs] = [
        (b"backup", Natural()),
        (b"applied_index", Natural()),
        (b"key_count", Natural()),
        (b"data_bytes", Natural()),
    ]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable, DiskFull, NotLeader)


class ReadBackup(amp.Command):
    """Read the next ``piece`` of a ``backup`` that is open; it has at most 512 KiB.

    ``number`` counts the pieces from 0, and the one before has to be answered. The pieces joined
    are the stream of `kvtwist.core.state.snapshot`, with its checksum; after the ``last`` one the
    backup is closed.
    """

    arguments: ClassVar[_Pairs] = [(b"backup", Natural()), (b"number", Natural()), *_COMMON]
    response: ClassVar[_Pairs] = [(b"piece", Blob()), (b"last", amp.Boolean())]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable, DiskFull)


class CloseBackup(amp.Command):
    """Read no more of a ``backup`` that is open; the answer is empty."""

    arguments: ClassVar[_Pairs] = [(b"backup", Natural()), *_COMMON]
    response: ClassVar[_Pairs] = []
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable)


class RaftMessages(amp.Command):
    """Bring what replicas on one node say to replicas on another (`kvtwist.core.raft.messages`).

    Only between nodes, and there is no answer: who needs one sends again. ``cluster`` is the
    cluster's id (16 bytes); another cluster's messages are refused. ``messages`` holds any number
    of messages, of any groups, in the order in which they were sent; the format is in
    `kvtwist.wire.raft`. It has at most 1 MiB, or one message that is longer. It is refused whole
    if a single byte of it is wrong or one message is of a kind that is not known; the connection
    lives on. Without any it is a sign of life. ``willing`` says whether the node takes leadership
    gladly; missing: as it was.
    """

    arguments: ClassVar[_Pairs] = [
        (b"cluster", Blob()),
        (b"messages", Blob()),
        (b"willing", amp.Boolean(optional=True)),
        *_COMMON,
    ]
    response: ClassVar[_Pairs] = []
    errors: ClassVar[_Errors] = {}
    requiresAnswer = False


class OfferSnapshot(amp.Command):
    """Offer a snapshot of a ``group`` to a replica that is behind what its leader has compacted.

    For the member alone that has the replica ``sender`` of the group; ``to`` is the replica of the
    node asked. ``term`` is the leader's; ``index`` and ``snapshot_term`` are of the last entry in
    the snapshot, ``configuration`` (`kvtwist.core.raft.Configuration`) was in force there. The
    answer names the ``transfer``, for this connection only, or is 0: nothing is to be sent, since
    the replica has all that, or another leader. A node takes few at a time, else the error is
    ``OVERLOADED``; another offer for the same group ends the one before.
    """

    arguments: ClassVar[_Pairs] = [
        (b"group", Natural()),
        (b"sender", Natural()),
        (b"to", Natural()),
        (b"term", Natural()),
        (b"index", Natural()),
        (b"snapshot_term", Natural()),
        (b"configuration", Blob()),
        *_COMMON,
    ]
    response: ClassVar[_Pairs] = [(b"transfer", Natural())]
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable, DiskFull)


class SnapshotPiece(amp.Command):
    """Send the next ``piece`` of a ``transfer``; it has at most 512 KiB.

    ``number`` counts the pieces from 0, and the one before has to be answered. The pieces joined
    are the stream of `kvtwist.core.state.snapshot`, with its checksum. The answer, which is empty,
    comes when the piece is in the store; to the ``last`` one when the snapshot has taken the place
    of what the replica had, or is not needed any more. A transfer of which nothing is heard for
    30 s, that lasts 15 min, or whose connection is lost is ended, and what was sent is removed.
    """

    arguments: ClassVar[_Pairs] = [
        (b"transfer", Natural()),
        (b"number", Natural()),
        (b"piece", Blob()),
        (b"last", amp.Boolean()),
        *_COMMON,
    ]
    response: ClassVar[_Pairs] = []
    errors: ClassVar[_Errors] = _ANY_ERRORS | _errors(Unavailable, DiskFull)


COMMANDS: tuple[type[amp.Command], ...] = (
    Hello,
    Ping,
    Fragment,
    Found,
    DescribeTopology,
    Status,
    DescribeReplicas,
    Get,
    Put,
    Delete,
    CompareAndSet,
    Increment,
    OpenSession,
    GetMany,
    PutMany,
    OpenBackup,
    ReadBackup,
    CloseBackup,
    RaftMessages,
    OfferSnapshot,
    SnapshotPiece,
)
"""All of them."""

WRITES: frozenset[type[amp.Command]] = frozenset((Put, Delete, CompareAndSet, Increment, PutMany))
"""Those that change data: never sent twice once bytes have left, unless they carry ``once``."""
