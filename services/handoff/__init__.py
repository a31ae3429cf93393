"""Handoff: gives an MQL to the right rep, runs the clocks both teams agreed on, and brings rejections back.

Read it in the order of the flow:

- `lifecycle` is the one table of what may happen to a handoff; `case` are the values, `terms` what its agreement says
- `clock` says which clocks run and what meets them, `route` who gets it, `recycle` what a reason leads to
- `change` makes one change of all that, purely; `notices` says what the others are told; `transitions` writes it
- `handlers` takes MQLs, merges and what sales did from the log, on a `desk` that a batch shares
- `watch` rings due clocks and lets the `router` assign what waits; `store` holds the statements
- `agreement` drafts, signs and publishes; `review` is what people do with a handoff, `reading` what they see of it
- `api` (with `agreement_api`) serves all that over HTTP, each POST once (`answers`)
- `diagram` draws the table of `lifecycle` for docs/lifecycle.md
- `checks` are the invariants of a running system
"""
