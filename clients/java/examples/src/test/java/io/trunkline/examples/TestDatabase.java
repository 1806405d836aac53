package io.trunkline.examples;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.regex.Pattern;

/** The brokers' database, where a test creates its tables in a schema of its own. */
record TestDatabase(String url, String schema, Connection connection) implements AutoCloseable {
    private static final Pattern DATABASE_URL = Pattern.compile("postgresql://(.+)@/(.+)\\?host=(/.+)");
    private static final String SOCKET_NAME = "/.s.PGSQL.5432";

    static TestDatabase create() throws SQLException {
        var socket = DATABASE_URL.matcher(System.getenv("TRUNKLINE_DATABASE_URL"));
        assertTrue(socket.matches(), "TRUNKLINE_DATABASE_URL is not as clients/with-broker sets it");
        var schema = "java_" + UUID.randomUUID().toString().replace('-', '_');
        var folder = socket.group(3);
        var url = "jdbc:postgresql://localhost/%s?user=%s&currentSchema=%s&socketFactory=%s&socketFactoryArg=%s"
                .formatted(socket.group(2), socket.group(1), schema, UnixSockets.class.getName(), folder + SOCKET_NAME);
        var database = new TestDatabase(url, schema, DriverManager.getConnection(url));
        database.execute("create schema " + schema);
        return database;
    }

    /** Starts an example with this database. */
    ExampleProgram start(Class<?> example, String... arguments) throws IOException {
        return ExampleProgram.start(Map.of("JDBC_DATABASE_URL", url), example, arguments);
    }

    void execute(String statement, Object... arguments) throws SQLException {
        try (var prepared = connection.prepareStatement(statement)) {
            for (var i = 0; i < arguments.length; i++) prepared.setObject(i + 1, arguments[i]);
            prepared.execute();
        }
    }

    /** The rows of a query of one column, as text. */
    List<String> rows(String query, Object... arguments) throws SQLException {
        try (var prepared = connection.prepareStatement(query)) {
            for (var i = 0; i < arguments.length; i++) prepared.setObject(i + 1, arguments[i]);
            var rows = new ArrayList<String>();
            for (var row = prepared.executeQuery(); row.next(); ) rows.add(row.getString(1));
            return rows;
        }
    }

    @Override
    public void close() throws SQLException {
        execute("drop schema " + schema + " cascade");
        connection.close();
    }
}
