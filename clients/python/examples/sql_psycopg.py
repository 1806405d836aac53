"""Publishes in transactions of psycopg, and processes each message exactly once.

Run it as `python -m examples.sql_psycopg TOPIC CONSUMER`, with the broker's database in
DATABASE_URL.
"""

import contextlib
import os
import sys

import psycopg
from psycopg.types.json import Jsonb

from trunkline import Client, Consumer

TABLES = """
create table if not exists orders (
    id bigint generated always as identity primary key, item text not null);
create table if not exists invoices (order_id bigint not null)
"""


def place_order(connection: psycopg.Connection, topic: str, item: str) -> None:
    """Stores an order and publishes it, both with the caller's transaction."""
    insert = "insert into orders (item) values (%s) returning id"
    [[order_id]] = connection.execute(insert, [item])
    event = Jsonb({"id": order_id, "item": item})
    # The key of a JSON payload is text, and psycopg would send an int as a number.
    publish = "select trunkline.publish_later(%s, %s, %s)"
    connection.execute(publish, [topic, event, str(order_id)])


def bill(connection: psycopg.Connection, orders: Consumer, topic: str, consumer_id: str) -> None:
    """Writes one invoice for each order, whatever breaks.

    If a transaction fails, open the consumer again: it begins with the order that failed.
    """
    for order in orders:
        with connection.transaction():
            invoice = "insert into invoices select (%s::jsonb ->> 'id')::bigint"
            connection.execute(invoice, [order.payload.decode()])
            # Fails if another process has taken over: that one writes the invoice. It comes last,
            # as the position stays locked until the end of the transaction.
            commit = "select trunkline.commit_position(%s, %s, %s, %s)"
            connection.execute(commit, [topic, consumer_id, order.offset + 1, orders.epoch])
        print(order.key.decode(), order.payload.decode(), flush=True)


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    # With autocommit, transactions begin and end where the code says so.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute("select trunkline.create_topic(%s, if_missing => true)", [topic])
        with connection.transaction():
            place_order(connection, topic, "one coffee")
        with connection.transaction():
            place_order(connection, topic, "two teas")
            raise psycopg.Rollback  # nobody ever sees the order or its message
        with connection.transaction():
            place_order(connection, topic, "three cakes")
        with (
            Client(target) as client,
            Consumer(client, topic, consumer_id, auto_commit=False) as orders,
        ):
            bill(connection, orders, topic, consumer_id)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
