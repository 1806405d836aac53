package io.trunkline.examples;

import io.trunkline.client.TrunklineClient;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

/** Stores orders and publishes their events in the same transactions: {@code JdbcOrders TOPIC CONSUMER}. */
public final class JdbcOrders {
    private static final String TABLE = """
            create table if not exists orders (
                id bigint generated always as identity primary key, item text not null)""";

    public static void main(String[] arguments) throws SQLException {
        var topic = arguments[0];
        var database = System.getenv().getOrDefault("JDBC_DATABASE_URL", "jdbc:postgresql://127.0.0.1/trunkline");
        long last;
        try (var connection = DriverManager.getConnection(database);
                var createTopic = connection.prepareStatement("select trunkline.create_topic(?, if_missing => true)")) {
            connection.createStatement().execute(TABLE);
            createTopic.setString(1, topic);
            createTopic.execute();

            connection.setAutoCommit(false);
            placeOrder(connection, topic, "one coffee");
            connection.commit();
            placeOrder(connection, topic, "two teas");
            connection.rollback(); // nobody ever sees the order or its event
            last = placeOrder(connection, topic, "three cakes");
            connection.commit();
        }

        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target);
                var events = client.consumer(topic, arguments[1]).open()) {
            for (var event : events) {
                var key = event.getKey().toStringUtf8();
                System.out.println(key + " " + event.getPayload().toStringUtf8());
                if (key.equals(String.valueOf(last))) events.stop();
            }
        }
    }

    /** Stores an order and publishes its event, both with the caller's transaction; returns its id. */
    private static long placeOrder(Connection connection, String topic, String item) throws SQLException {
        try (var insert = connection.prepareStatement("insert into orders (item) values (?) returning id");
                var publish = connection.prepareStatement(
                        "select trunkline.publish_later(?, jsonb_build_object('id', ?, 'item', ?), ?)")) {
            insert.setString(1, item);
            var order = insert.executeQuery();
            order.next();
            var id = order.getLong("id");
            publish.setString(1, topic);
            publish.setLong(2, id);
            publish.setString(3, item);
            publish.setString(4, String.valueOf(id)); // the key is text
            publish.execute(); // a function is a query, so executeUpdate would complain about its row
            return id;
        }
    }
}
