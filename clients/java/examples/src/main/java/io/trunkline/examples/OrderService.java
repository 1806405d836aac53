package io.trunkline.examples;

import javax.sql.DataSource;
import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.stereotype.Service;
import org.springframework.transaction.annotation.Transactional;

/** Publishes events in the transactions of its methods. */
@Service
public class OrderService {
    private final JdbcClient database;

    OrderService(DataSource database) {
        this.database = JdbcClient.create(database);
    }

    void prepare(String topic) {
        database.sql("""
                create table if not exists orders (
                    id bigint generated always as identity primary key, item text not null)""").update();
        database.sql("select trunkline.create_topic(?, if_missing => true)").param(topic).query().singleRow();
    }

    /** Stores an order and publishes its event, or neither if an exception leaves it; returns the order's id. */
    @Transactional
    public long place(String topic, String item) {
        var id = database.sql("insert into orders (item) values (?) returning id")
                .param(item)
                .query(Long.class)
                .single();
        // A function is a query, even if it returns nothing. The key is text.
        database.sql("select trunkline.publish_later(?, jsonb_build_object('id', ?, 'item', ?), ?)")
                .params(topic, id, item, String.valueOf(id))
                .query()
                .singleRow();
        if (item.contains("yacht")) throw new IllegalArgumentException("not for sale: " + item);
        return id;
    }
}
