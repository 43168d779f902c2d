"""What carries events from server to server: one short file for each guarantee."""

from wsdemo.brokers.base import Broker, BrokerDown, Receipt, Relay, Resumption
from wsdemo.brokers.local import LocalBroker
from wsdemo.brokers.pubsub import PubSubBroker
from wsdemo.brokers.queue import QueueBroker
from wsdemo.brokers.stream import StreamBroker

__all__ = [
    "Broker",
    "BrokerDown",
    "LocalBroker",
    "PubSubBroker",
    "QueueBroker",
    "Receipt",
    "Relay",
    "Resumption",
    "StreamBroker",
]
