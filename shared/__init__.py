"""What the services have in common: the words they exchange, the log, the database, and the ways to lose nothing.

Read in this order: `events`, `envelope`, `topics` (what is said, how, and where), `bus` (the log) with `kafka` and
`embedded`, `db` with `sql`, `engines` and `trouble` (a service's state), `outbox` and `relay` (out), `consume` with
`lanes`, `settle` and `positions` (in), `agreement` and `worktime` (what is agreed), `service`, `process`, `start` (a
process), `cli` (people).
"""
