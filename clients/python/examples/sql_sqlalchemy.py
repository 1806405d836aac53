"""Publishes in transactions of an SQLAlchemy session.

Run it as `python -m examples.sql_sqlalchemy TOPIC CONSUMER`, with the broker's database in
DATABASE_URL.
"""

import contextlib
import os
import sys

from sqlalchemy import BigInteger, Identity, create_engine, func, literal, make_url, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from trunkline import Client, Consumer


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    item: Mapped[str]


class Declined(Exception):
    """The payment failed."""


def place_order(session: Session, topic: str, item: str) -> None:
    """Stores an order and publishes it, both with the session's transaction."""
    order = Order(item=item)
    session.add(order)
    session.flush()  # so that the database gives the order its id
    event = literal({"id": order.id, "item": item}, JSONB)
    session.execute(select(func.trunkline.publish_later(topic, event, str(order.id))))


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    # SQLAlchemy wants the driver in the URL, which other programs do not accept.
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    new_session = sessionmaker(engine)
    with new_session.begin() as session:
        create = text("select trunkline.create_topic(:topic, if_missing => true)")
        session.execute(create, {"topic": topic})
    with new_session.begin() as session:
        place_order(session, topic, "one coffee")
    with contextlib.suppress(Declined), new_session.begin() as session:
        place_order(session, topic, "two teas")
        raise Declined  # nobody ever sees the order or its message
    with new_session.begin() as session:
        place_order(session, topic, "three cakes")

    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with Client(target) as client, Consumer(client, topic, consumer_id) as messages:
        for message in messages:
            print(message.key.decode(), message.payload.decode(), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
