"""Scoring: from what leads do to scores and MQLs. Read it in the order in which an activity passes through.

The door: `sources` (what the formats say), `arrivals`, `identity` and `resolve` (whose it is), `intake` (2xx after the
commit), `store.door`. Then, over the log, the scorer: `scorecard` (the agreement made ready), `score` (the pure fold),
`qualify` (the pure judgement), `lead` and `batch` (both in memory), `handlers`, `publish` (written and told), `refold`
(after a new agreement), `store.scorer`. Last, `api`: what people ask; `checks`: what `baton check` asks.
"""
