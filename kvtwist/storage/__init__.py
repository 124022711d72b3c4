"""What a node keeps: engines that hold bytes, and the store on top that does not make one wait.

From the bottom up: `engine` says what an engine is, `memory` and `rocks` are the two; `frames` are
the checksums around what is kept, `layout` its keys; `worker` is the thread that waits for disks,
`store` commits what many ask for together.
"""
