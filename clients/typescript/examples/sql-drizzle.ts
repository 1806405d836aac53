// Publishes in transactions of Drizzle. The broker's database is in DATABASE_URL.
//
//     npx tsx examples/sql-drizzle.ts TOPIC CONSUMER

import { sql, TransactionRollbackError } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigint, pgTable, text } from "drizzle-orm/pg-core";
import { Client } from "trunkline";

const orders = pgTable("orders", {
  id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  item: text().notNull(),
});

const [topic = "", consumerId = ""] = process.argv.slice(2);
const database = drizzle(process.env.DATABASE_URL ?? "");
type Transaction = Parameters<Parameters<typeof database.transaction>[0]>[0];

// In a project, both belong into migrations.
await database.execute(sql`create table if not exists orders
  (id bigint generated always as identity primary key, item text not null)`);
await database.execute(sql`select trunkline.create_topic(${topic}, if_missing => true)`);

await database.transaction((tx) => placeOrder(tx, "one coffee"));
await database
  .transaction(async (tx) => {
    await placeOrder(tx, "two teas");
    // Nobody ever sees the order or its message.
    tx.rollback();
  })
  .catch((error) => {
    if (!(error instanceof TransactionRollbackError)) throw error;
  });
await database.transaction((tx) => placeOrder(tx, "three cakes"));
await database.$client.end();

const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
const consumer = await client.consumer(topic, consumerId);
process.once("SIGINT", () => consumer.close());
for await (const message of consumer) {
  console.log(`${Buffer.from(message.key ?? [])} ${message.text()}`);
}

/** Stores an order and publishes it, both with the transaction. */
async function placeOrder(tx: Transaction, item: string): Promise<void> {
  for (const order of await tx.insert(orders).values({ item }).returning()) {
    const event = JSON.stringify(order);
    // The cast says that the payload is JSON.
    await tx.execute(
      sql`select trunkline.publish_later(${topic}, ${event}::jsonb, ${String(order.id)})`,
    );
  }
}
