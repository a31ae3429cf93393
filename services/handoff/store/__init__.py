"""Every statement of the handoff service; one a step, never one a record. Agreement drafts: `agreement_store.py`."""
