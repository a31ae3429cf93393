"""Scoring: from what leads do to scores and MQLs. Read it in the order in which an activity passes through.

The door: `intake` (2xx after the commit) over `bodies` and `sources` (what the formats say, as `arrivals`); `door`
(whoever waits shares one commit), `admit` (that transaction), `recognise` over `identity` and `resolve` (whose it is),
`announce` (what the others are told), `store.door`; `quarantine` (what could not be used).

Over the log, the scorer: `scorecard` (the agreement made ready), `score` (the pure fold), `qualify` (the pure
judgement), `lead` and `batch` (both in memory), `handlers`, `publish` (written and told), `refold` (after a new
agreement), `store.scorer`. Last, `api`: what people ask; `checks`: what `baton check` asks.
"""
