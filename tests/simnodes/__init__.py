"""Whole nodes and their clients in one process and in virtual time, out of one number.

`kvtwist.service.Node` and `kvtwist.client.Client` run here as they are, with all that they build.
What is below them is made up and under the seed's control: reactors, clocks, network, disks. While
they run the nodes are held against what is on all disks; in the end the clients' histories are
judged. The same seed is the same run, to the last byte on the wire.

============ ===================================================================================
plan         what kind of run a seed is
clock        virtual time; timers
network      hosts, what is cut, how slow it is
lines        connections between them
disk         what is synced, and what a crash leaves of the rest
machine      a machine with a node on it, over all its lives
keys         which keys there are
clients      processes with real clients; `stock`: those that speak stock AMP
history      what they write down
faults       the nemesis; `strangers`: who is no member
ledger       what is true of the whole cluster: entries, leaders, and what is on which disk
invariants   what must hold
watching     where that is asked
judging      what is asked of histories
surroundings thresholds, and the garbage collection
trace        what has happened, and its digest
simulation   a run
campaign     many runs
mutants      bugs that must be found; `hunting` looks for them
============ ===================================================================================

docs/simulation.md says how to run it and how to read what it prints.
"""
