"""What the services have in common: the words they exchange, the log, the database, and the ways to lose nothing between them.

Read in this order: `events`, `topics` (what is said, and where), `bus` (the log) with `kafka` and `embedded`, `db` and
`sql` (a service's state), `outbox` and `relay` (out), `consume` (in), `agreement` and `worktime` (what is agreed).
"""
