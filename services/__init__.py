"""The three services of Baton, in the order in which a lead meets them: `scoring`, `handoff`, `notifier`."""
