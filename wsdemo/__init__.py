"""Why WebSocket servers need a message broker once there are two of them: seen, and counted."""

import logging

from wsdemo import faults, scenarios
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.compare import compare
from wsdemo.ledger import ledger
from wsdemo.stage import Stage
from wsdemo.timeline import timeline
from wsdemo.trace import Trace

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
