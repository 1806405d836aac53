package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trunkline.client.TrunklineClient;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.List;
import java.util.UUID;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Transactions that publish, and transactions that process each message once. */
class SqlExamplesTest {
    private final String topic = "test-" + UUID.randomUUID();

    @AutoClose
    private final TestDatabase database = TestDatabase.create();

    SqlExamplesTest() throws SQLException {}

    @ParameterizedTest
    @ValueSource(classes = {JdbcOrders.class, SpringOrders.class})
    void whatIsRolledBackIsNotPublished(Class<?> example) throws Exception {
        try (var orders = database.start(example, topic, BILLING)) {
            var printed = orders.output().lines().toList();
            assertEquals(0, orders.exitValue());
            var events = List.of("1 {\"id\": 1, \"item\": \"one coffee\"}", "3 {\"id\": 3, \"item\": \"three cakes\"}");
            assertEquals(events, printed);
            assertEquals(events, database.rows("select key_text || ' ' || payload_text from trunkline.read(?)", topic));
        }
        assertEquals(
                List.of("1 one coffee", "3 three cakes"),
                database.rows("select id || ' ' || item from orders order by id"));
    }

    @Test
    void eachOrderIsBilledOnceWhateverBreaks() throws Exception {
        publishOrders(9);
        database.execute(JdbcInvoices.TABLE);
        // Both come at the end of the transaction, when the position has been moved.
        atCommitOf(3, "raise 'order % cannot be billed', new.order_id;");
        atCommitOf(6, "perform pg_advisory_xact_lock(hashtext(current_schema));");

        var failed = assertThrows(SQLException.class, this::bill);
        assertTrue(failed.getMessage().contains("order 3 cannot be billed"), failed::getMessage);
        assertEquals(numbers(2), invoices());
        database.execute("drop trigger at_3 on invoices");

        // The program never hears whether its transaction was committed.
        database.execute("select pg_advisory_lock(hashtext(current_schema))");
        try (var invoices = database.start(JdbcInvoices.class, topic, BILLING)) {
            for (var order = 3; order < 6; order++) assertEquals("billed order " + order, invoices.output().readLine());
            var committing = "select pid from pg_stat_activity where query = 'COMMIT' and wait_event = 'advisory'";
            while (database.rows(committing).isEmpty()) Thread.onSpinWait();
            invoices.process().destroyForcibly();
            invoices.exitValue();
        }
        database.execute("select pg_advisory_unlock(hashtext(current_schema))");
        bill();
        assertEquals(numbers(9), invoices());
        assertEquals(List.of("9"), database.rows("select position from trunkline.consumers where topic = ?", topic));
    }

    @Test
    void whoIsTakenOverCommitsNoPosition() throws Exception {
        publishOrders(2);
        var commit = "select trunkline.commit_position(?, 'billing', ?, ?)";
        try (var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"));
                var orders = client.consumer(topic, BILLING).commitByHand().open()) {
            assertEquals(0, orders.epoch());
            var first = orders.next();
            var epoch = orders.epoch();
            try (var other = client.consumer(topic, BILLING).commitByHand().takeOver().open()) {
                assertEquals(first, other.next());
                assertEquals(epoch, orders.epoch());
                var refused = assertThrows(SQLException.class, () -> database.execute(commit, topic, 1, epoch));
                assertEquals("TL112", refused.getSQLState());
                database.execute(commit, topic, 1, other.epoch());
            }
        }
    }

    @Test
    void theEpochIsThatOfTheMessageInHand() throws Exception {
        publishOrders(1);
        try (var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"));
                var orders = client.consumer(topic, BILLING).commitByHand().open()) {
            var order = orders.next();
            var epoch = orders.epoch();
            database.execute("select trunkline.seek(?, ?, earliest => true)", topic, BILLING);
            orders.hasNext();
            assertEquals(epoch, orders.epoch());
            assertEquals(order, orders.next());
            assertEquals(epoch + 1, orders.epoch());
        }
    }

    private void bill() throws SQLException {
        try (var connection = DriverManager.getConnection(database.url());
                var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"));
                var orders = client.consumer(topic, BILLING).commitByHand().untilCaughtUp().open()) {
            JdbcInvoices.bill(connection, orders, topic, BILLING);
        }
    }

    private void atCommitOf(int order, String statement) throws SQLException {
        database.execute("create function at_%d() returns trigger language plpgsql as $$ begin %s return null; end $$"
                .formatted(order, statement));
        database.execute("create constraint trigger at_%1$d after insert on invoices deferrable initially deferred "
                .concat("for each row when (new.order_id = %1$d) execute function at_%1$d()")
                .formatted(order));
    }

    private void publishOrders(int count) throws SQLException {
        database.execute("select trunkline.create_topic(?)", topic);
        database.execute(
                "select trunkline.publish_many(?, array_agg(json_build_object('id', id)), array_agg(id::text)) "
                        + "from generate_series(1, ?) id",
                topic,
                count);
    }

    private List<String> invoices() throws SQLException {
        return database.rows("select order_id from invoices order by order_id");
    }

    private static List<String> numbers(int last) {
        return IntStream.rangeClosed(1, last).mapToObj(String::valueOf).toList();
    }
}
