"""A client of Trunkline: producers that store each message once, and consumers that resume.

`trunkline.aio` is the same for asyncio, and `trunkline.v1` are the stubs.
"""

from trunkline._client import Client
from trunkline._consumer import Consumer
from trunkline._errors import Error
from trunkline._producer import Producer, Receipt
from trunkline.v1.message_pb2 import Message

__all__ = ["Client", "Consumer", "Error", "Message", "Producer", "Receipt"]
