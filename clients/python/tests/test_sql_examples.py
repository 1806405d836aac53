"""Tests that the examples with SQL publish what their transactions store, and nothing else."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import islice
from uuid import uuid4

import grpc
import psycopg
import pytest

import trunkline
from examples import sql_psycopg
from tests.conftest import TARGET
from tests.test_examples import FOLDER, SECONDS, command, read

DATABASE_URL = os.environ["TRUNKLINE_DATABASE_URL"]
COFFEE, CAKES = {"id": 1, "item": "one coffee"}, {"id": 3, "item": "three cakes"}


@pytest.fixture
def database_url() -> Iterator[str]:
    """The database of the brokers, where tables are made in a schema that no other test uses."""
    schema = f"python_{uuid4().hex}"
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
        yield f"{DATABASE_URL}&options=-csearch_path%3D{schema}"
        connection.execute(f"drop schema {schema} cascade")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql_psycopg.TABLES)
        yield connection


@pytest.mark.parametrize("example", ["sql_psycopg", "sql_sqlalchemy", "sql_django"])
def test_what_is_rolled_back_is_not_published(
    channel: grpc.Channel, new_name: str, database_url: str, example: str
) -> None:
    with subprocess.Popen(
        command(example, new_name, "billing"),
        cwd=FOLDER,
        env=os.environ | {"DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdout is not None
        printed = [line.split(maxsplit=1) for line in islice(running.stdout, 2)]
        running.send_signal(signal.SIGINT)
        assert running.wait(SECONDS) == 0
        assert running.stdout.read() == ""

    assert [(key, json.loads(event)) for key, event in printed] == [("1", COFFEE), ("3", CAKES)]
    stored = [(message.key, json.loads(message.payload)) for message in read(channel, new_name)]
    assert stored == [(b"1", COFFEE), (b"3", CAKES)]
    with psycopg.connect(database_url) as connection:
        orders = connection.execute("select id, item from orders order by id").fetchall()
        assert orders == [(1, "one coffee"), (3, "three cakes")]
        if example == "sql_psycopg":
            assert invoices(connection) == [1, 3]


# The failure comes with the statement, or at the very end, with the commit.
@pytest.mark.parametrize("failing", ["not deferrable", "deferrable initially deferred"])
def test_each_order_is_billed_once_although_a_transaction_fails(
    topic: str, connection: psycopg.Connection, failing: str
) -> None:
    orders = list(range(1, 11))
    events = [json.dumps({"id": order}) for order in orders]
    keys = [str(order) for order in orders]
    publish = "select trunkline.publish_many(%s, %s::text[], %s::text[])"
    connection.execute(publish, [topic, events, keys])
    connection.execute(
        f"""
        create function fail() returns trigger language plpgsql as
            $$ begin raise 'out of paper'; end $$;
        create constraint trigger out_of_paper after insert on invoices {failing}
            for each row when (new.order_id = 5) execute function fail()
        """
    )

    with pytest.raises(psycopg.errors.RaiseException, match="out of paper"):
        bill(connection, topic)
    assert invoices(connection) == [1, 2, 3, 4]

    connection.execute("drop trigger out_of_paper on invoices")
    bill(connection, topic)
    assert invoices(connection) == orders


def test_who_is_taken_over_bills_nothing(topic: str, connection: psycopg.Connection) -> None:
    publish = "select trunkline.publish(%s, jsonb_build_object('id', 1), 'one')"
    connection.execute(publish, [topic])

    class TakenOver(trunkline.Consumer):
        """Loses its lease before its caller gets a message, and does not know of it yet."""

        def __next__(self) -> trunkline.Message:
            message = super().__next__()
            bill(connection, topic, take_over=True)
            assert invoices(connection) == [1]
            return message

    with (
        trunkline.Client(TARGET) as client,
        TakenOver(client, topic, "billing", auto_commit=False) as orders,
        pytest.raises(psycopg.DatabaseError, match="has ended") as refused,
    ):
        sql_psycopg.bill(connection, orders, topic, "billing")
    assert refused.value.sqlstate == "TL112"
    assert invoices(connection) == [1]


def bill(connection: psycopg.Connection, topic: str, *, take_over: bool = False) -> None:
    """Bills what is left to be billed."""
    with (
        trunkline.Client(TARGET) as client,
        trunkline.Consumer(
            client, topic, "billing", auto_commit=False, until_caught_up=True, take_over=take_over
        ) as orders,
    ):
        sql_psycopg.bill(connection, orders, topic, "billing")


def invoices(connection: psycopg.Connection) -> list[int]:
    rows = connection.execute("select order_id from invoices order by order_id")
    return [order_id for [order_id] in rows]
