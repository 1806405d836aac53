package io.trunkline.examples;

import io.trunkline.client.TrunklineClient;
import javax.sql.DataSource;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.transaction.TransactionManager;
import org.springframework.transaction.annotation.EnableTransactionManagement;

/** Places orders through a Spring service, then prints their events: {@code SpringOrders TOPIC CONSUMER}. */
public final class SpringOrders {
    public static void main(String[] arguments) {
        var topic = arguments[0];
        long last;
        try (var spring = new AnnotationConfigApplicationContext(Database.class, OrderService.class)) {
            var orders = spring.getBean(OrderService.class);
            orders.prepare(topic);
            orders.place(topic, "one coffee");
            try {
                orders.place(topic, "two yachts");
            } catch (IllegalArgumentException refused) {
                System.err.println(refused.getMessage()); // nobody ever sees the order or its event
            }
            last = orders.place(topic, "three cakes");
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

    @Configuration
    @EnableTransactionManagement
    static class Database {
        @Bean
        DataSource dataSource() {
            var url = System.getenv().getOrDefault("JDBC_DATABASE_URL", "jdbc:postgresql://127.0.0.1/trunkline");
            return new DriverManagerDataSource(url);
        }

        @Bean
        TransactionManager transactionManager(DataSource database) {
            return new DataSourceTransactionManager(database);
        }
    }
}
