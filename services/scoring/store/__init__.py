"""The scorer's database, in the order of a batch: `locks`, `activities`, `scorer`; then what people read: `reading`."""

from services.scoring.store.activities import histories, insert_activities
from services.scoring.store.locks import Locked, RootChanged, lock, lock_outdated
from services.scoring.store.reading import contacts
from services.scoring.store.scorer import close_mqls, insert_mqls, leads_of_mqls, load, put_leads, put_merges

__all__ = [
    "Locked",
    "RootChanged",
    "close_mqls",
    "contacts",
    "histories",
    "insert_activities",
    "insert_mqls",
    "leads_of_mqls",
    "load",
    "lock",
    "lock_outdated",
    "put_leads",
    "put_merges",
]
