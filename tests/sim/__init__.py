"""A whole Raft group in one process and in virtual time, out of one number, made to break it.

`kvtwist.core.raft` and `kvtwist.core.state` run here as they are. Everything around them is made up
and under the seed's control: clocks, network, disks, crashes, clients, operators. After every step
the group is held against the invariants of the papers, and in the end the clients' histories
against linearizability. The same seed is the same run, to the last event.

========== =====================================================================================
plan       what kind of run a seed is
schedule   virtual time
network    loses, repeats, delays, reorders; is cut
disk       a journal with a cache that a crash empties
machine    the state machine, as its clients see it
member     a replica and its caller: a model of how to drive `kvtwist.core.raft`
watch      what a member tells those around it
faults     the nemesis
operator   changes of the membership, transfers of leadership, the failure detector
clients    who ask, and write down what they are told
ledger     what is true of the whole group
invariants what must hold, and who asks it
simulation a run
campaign   many runs
mutants    bugs that the simulator must find
========== =====================================================================================

docs/simulation.md says how to run it and how to read what it prints.
"""
