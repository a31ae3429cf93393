"""The notifier tells people and marketing's automation what happened, at least once, under one id, and never too late.

Read in the order of the flow: `handlers` (what is kept and told of each event), `compose` with `schedule`, `render` and
`escape` (who is told what, in which words), `deliver` with `channels` (how it leaves, is tried again, and is given up),
`api`, `checks`; the statements are in `store`.
"""
