"""The exercises: each judges an attempt on a fresh run, which differs from one check to the next.

A check plays with real parts of its own. Its seed decides what nobody can know who writes the
attempt: who else plays, on which servers, what they say, and in which order things break. Without a
seed each check draws another one. It says which events went wrong, and never how to mend that.
"""

from wsdemo.exercises.acts import hear_each_other, plays_on
from wsdemo.exercises.attempt import NotYet
from wsdemo.exercises.choices import TROUBLES, cheapest_broker
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.functions import (
    bytes_before_a_text,
    cost_of_an_outage,
    events_received,
    subscribers_of_an_event,
    what_pubsub_loses,
    who_hears,
)
from wsdemo.exercises.stories import (
    end_apart,
    everyone_hears_once,
    one_falls_out_of_history,
    p1_misses,
    said_while_redis_is_away,
    spread_out,
    survives_redis,
)

__all__ = [
    "TROUBLES",
    "Exercise",
    "NotYet",
    "bytes_before_a_text",
    "cheapest_broker",
    "cost_of_an_outage",
    "end_apart",
    "events_received",
    "everyone_hears_once",
    "hear_each_other",
    "one_falls_out_of_history",
    "p1_misses",
    "plays_on",
    "said_while_redis_is_away",
    "spread_out",
    "subscribers_of_an_event",
    "survives_redis",
    "what_pubsub_loses",
    "who_hears",
]
