"""The pure part: what kvtwist *decides*.

Nothing in here knows Twisted, a clock, randomness, a thread, a socket or a disk. Time and chance
are arguments; output is a value. Same state and same input give the same output.
"""
