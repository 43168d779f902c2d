"""Why WebSocket servers need a message broker once there are two of them: seen, and counted."""

import logging
from typing import TYPE_CHECKING, Any

from wsdemo import faults, scenarios
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.compare import compare
from wsdemo.ledger import ledger
from wsdemo.trace import Trace

if TYPE_CHECKING:
    from wsdemo.pictures.space_time import timeline
    from wsdemo.stage import Stage

__all__ = [
    "Cluster",
    "Stage",
    "Trace",
    "compare",
    "faults",
    "ledger",
    "open_cluster",
    "scenarios",
    "timeline",
]

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """What draws is imported when it is first asked for: a server process carries none of it."""
    if name not in ("Stage", "timeline"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wsdemo import stage
    from wsdemo.pictures import space_time

    globals().update(Stage=stage.Stage, timeline=space_time.timeline)
    return globals()[name]
