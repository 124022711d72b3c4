"""Judges histories of operations on keys: is there an order in which they make sense?

An execution is *linearizable* (Herlihy & Wing 1990) if each operation can be given one moment
between its invocation and its return at which it takes place, at once, and all answers are then
those of a plain table of records. Everything here is pure and knows nothing of kvtwist's code.

**In**: `Operation`s (`history`), from a `Recorder` or made by hand: who, which key, what, when it
was invoked and when it returned, and an outcome: *answered*, *not done* (it never takes place) or
*unknown* (it takes place at some time after the invocation, or never).

**Out**: ``check(operations)`` (`judge`) gives a `Judgement`: LINEARIZABLE, NOT_LINEARIZABLE with a
`Counterexample` for people, or UNDECIDED when the budget was used up, which is a failure. Best is
``assert_linearizable(operations)``, which raises `AssertionError` for both of them and gives the
numbers of what it has judged.

**What the caller owes**

* Every key starts absent, and *all* writes to it are in the history. One that is missing makes an
  answer inexplicable. One whose answer did not come must be in it, as *unknown*.
* *Not done* only where the system said so. A timeout after bytes have left is *unknown*.
* An operation whose condition failed (a compare-and-set that saw another version) was *answered*,
  with ``done=False`` and the version that it saw: it is a read as well.
* Times from one clock, of any ordered numbers. Operations whose intervals touch count as
  concurrent, also those of one client. With a coarse clock nearly everything touches, and the check
  is worth little: number the events (1, 2, 3, ...) instead of reading such a clock.
* To make sure that there was something to judge (X1): count answered operations, writes that were
  read, unknown outcomes. An empty history is linearizable.

**What it is exact for.** A record's version is greater than all versions that its key had before,
and each change takes one, removals too. Linearizability is a property of each key alone (Herlihy &
Wing, theorem 1), so keys are judged one by one. That versions also grow from key to key of one
partition is a promise beyond that: `revisions.check_revisions` has it.

========== =====================================================================================
history    what goes in: operations, outcomes, answers; the recorder
model      the record of a key, and what each operation demands of it and does to it
versions   the fast check, O(n log n), for histories where versions tell the order of the changes
search     the search, for all others: just-in-time linearization with a memo
unknowns   the search's treatment of operations with unknown outcome
judge      both together, key by key
explain    the smallest part of a history that is wrong, printed
revisions  versions across the keys of a partition
execution  random executions of a real register, for tests of all this
========== =====================================================================================
"""
