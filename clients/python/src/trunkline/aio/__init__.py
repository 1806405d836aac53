"""The client for asyncio."""

from trunkline.aio._client import Client
from trunkline.aio._consumer import Consumer
from trunkline.aio._producer import Producer, Receipt

__all__ = ["Client", "Consumer", "Producer", "Receipt"]
