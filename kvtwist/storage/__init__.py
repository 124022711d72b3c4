"""What a node keeps: engines that hold bytes, and the store on top that does not make one wait.

From the bottom up: `engine` says what an engine is, `memory` and `rocks` are the two; `frames` are
the checksums around what is kept, `layout` its keys; `worker` is the thread that waits for disks,
`store` commits what many ask for together. `logs`, `records` and `states` say how Raft groups and
their state machines stand in it, `snapshots` how a state goes out of it and comes in, `marks` how
far it has been; `directory` is all of that as a node finds it when it starts, and `check` says
whether it is as it was written.
"""
