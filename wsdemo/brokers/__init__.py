"""What carries events from server to server: one short file for each guarantee."""

from wsdemo.brokers.base import Broker, BrokerDown, Relay
from wsdemo.brokers.local import LocalBroker
from wsdemo.brokers.pubsub import PubSubBroker

__all__ = ["Broker", "BrokerDown", "LocalBroker", "PubSubBroker", "Relay"]
