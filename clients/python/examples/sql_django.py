"""Publishes in transactions of Django.

Run it as `python -m examples.sql_django TOPIC CONSUMER`, with the broker's database in
DATABASE_URL.
"""

import contextlib
import os
import sys

import django
from django.conf import settings
from django.db import connection, models, transaction
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from trunkline import Client, Consumer

# Django wants the name of the database apart, and passes the rest on to psycopg.
options = conninfo_to_dict(os.environ["DATABASE_URL"])
database = {"ENGINE": "django.db.backends.postgresql", "NAME": options.pop("dbname")}
settings.configure(DATABASES={"default": database | {"OPTIONS": options}})
django.setup()


class Order(models.Model):
    id = models.BigAutoField(primary_key=True)
    item = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "orders"


class Declined(Exception):
    """The payment failed."""


def place_order(topic: str, item: str) -> None:
    """Stores an order and publishes it, both with the caller's transaction."""
    order = Order.objects.create(item=item)
    event = Jsonb({"id": order.id, "item": item})
    with connection.cursor() as cursor:
        publish = "select trunkline.publish_later(%s, %s, %s)"
        cursor.execute(publish, [topic, event, str(order.id)])


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    # In a project, both belong into migrations: CreateModel and RunSQL.
    with connection.schema_editor() as editor:
        if "orders" not in connection.introspection.table_names():
            editor.create_model(Order)
        editor.execute("select trunkline.create_topic(%s, if_missing => true)", [topic])
    with transaction.atomic():
        place_order(topic, "one coffee")
    with contextlib.suppress(Declined), transaction.atomic():
        place_order(topic, "two teas")
        raise Declined  # nobody ever sees the order or its message
    with transaction.atomic():
        place_order(topic, "three cakes")

    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with Client(target) as client, Consumer(client, topic, consumer_id) as messages:
        for message in messages:
            print(message.key.decode(), message.payload.decode(), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
