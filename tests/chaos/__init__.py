"""Real processes under real faults: nodes that are killed, frozen, restarted and cut off.

A run founds a cluster of `twistd kvnode` processes with RocksDB on disk, lets real clients work on
it, and does to the processes, and to the network between them, what `schedule` has drawn from a
seed. Every operation goes into one history, on one clock; at the end all is healed, every key is
read once more, and the history goes through `tests.linearizability`. What it does, and how to read
what it prints: docs/chaos.md.

========== =====================================================================================
schedule   what happens when: pure, drawn from a seed
cluster    the nodes' processes
network    a network of our own: a namespace for each node, cut between any two, each way
faults     does what the schedule says
load       the clients, and the history of what they did
values     what they write
visitor    clients that ask any node
outages    how long each partition took no write: pure, out of the history
verdict    what a history comes to: linearizable? are the counters right? pure
evidence   a history in a file
remains    what stopped nodes have left on their disks: sound, and do the replicas agree?
report     all the figures of a run, and whether it was worth anything: pure
campaign   one run, from founding to verdict
========== =====================================================================================

**Replays.** The schedule is a function of the seed, what the processes make of it is not: a failure
found here has its cause looked for in the logs and the history that are kept, and a test of its own
in the simulators.
"""
