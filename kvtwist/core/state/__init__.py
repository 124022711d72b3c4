"""The state machine of a partition, replicated: pure, and driven by Raft's committed entries.

`machine` is its contract, and where to begin. `commands` is what an entry can ask, `operations`
what that does to one record, `outcomes` and `answers` what came of it, `sessions` what makes
retries safe. `contents` is all that is held, on `ordered`; `snapshot` is that as a stream of bytes.
`logtime` is the leader's clock. `records` and `fields` are the rest of the formats.

**Beside `kvtwist.core.partition`.** That is the partition of a cluster in memory that keeps one
copy: no log, so no sessions, no log time, no snapshots, and a put there costs a tenth of an entry
here. What put, delete and compare-and-set do is the same in both, and a test holds them to it. When
partitions in memory are replicated too, their nodes drive this one, and the other goes.
"""
