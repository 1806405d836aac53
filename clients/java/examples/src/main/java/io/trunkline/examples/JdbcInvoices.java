package io.trunkline.examples;

import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineConsumer;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

/** Writes one invoice for each order, whatever breaks: {@code JdbcInvoices TOPIC CONSUMER}. */
public final class JdbcInvoices {
    static final String TABLE = "create table if not exists invoices (order_id bigint not null)";

    public static void main(String[] arguments) throws SQLException {
        var topic = arguments[0];
        var consumerId = arguments[1];
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        var database = System.getenv().getOrDefault("JDBC_DATABASE_URL", "jdbc:postgresql://127.0.0.1/trunkline");
        try (var connection = DriverManager.getConnection(database);
                var client = TrunklineClient.connect(target);
                // By hand: the position is committed with SQL, and never by the client.
                var orders = client.consumer(topic, consumerId).commitByHand().untilCaughtUp().open()) {
            connection.createStatement().execute(TABLE);
            bill(connection, orders, topic, consumerId);
        }
    }

    /** If it fails, close both and open them again: the consumer then begins with the order that failed. */
    static void bill(Connection connection, TrunklineConsumer orders, String topic, String consumerId)
            throws SQLException {
        connection.setAutoCommit(false);
        try (var invoice = connection.prepareStatement("insert into invoices (order_id) values (?)");
                var position = connection.prepareStatement("select trunkline.commit_position(?, ?, ?, ?)")) {
            for (var order : orders) {
                invoice.setLong(1, Long.parseLong(order.getKey().toStringUtf8()));
                invoice.execute();
                // Fails if another process has taken over: that one writes the invoice. It comes last, as the
                // position stays locked until the end of the transaction.
                position.setString(1, topic);
                position.setString(2, consumerId);
                position.setLong(3, order.getOffset() + 1);
                position.setLong(4, orders.epoch());
                position.execute();
                connection.commit();
                System.out.println("billed order " + order.getKey().toStringUtf8());
            }
        }
    }
}
