// Publishes in transactions of node-postgres. The broker's database is in DATABASE_URL.
//
//     npx tsx examples/sql-pg.ts TOPIC CONSUMER

import pg from "pg";
import { Client } from "trunkline";

const [topic = "", consumerId = ""] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
await pool.query(`create table if not exists orders
  (id bigint generated always as identity primary key, item text not null)`);
await pool.query("select trunkline.create_topic($1, if_missing => true)", [topic]);

class Declined extends Error {}

await inTransaction((connection) => placeOrder(connection, "one coffee"));
await inTransaction(async (connection) => {
  await placeOrder(connection, "two teas");
  // Nobody ever sees the order or its message.
  throw new Declined();
}).catch((error) => {
  if (!(error instanceof Declined)) throw error;
});
await inTransaction((connection) => placeOrder(connection, "three cakes"));
await pool.end();

const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
const consumer = await client.consumer(topic, consumerId);
process.once("SIGINT", () => consumer.close());
for await (const message of consumer) {
  console.log(`${Buffer.from(message.key ?? [])} ${message.text()}`);
}

/** Stores an order and publishes it, both with the caller's transaction. */
async function placeOrder(connection: pg.PoolClient, item: string): Promise<void> {
  const insert = "insert into orders (item) values ($1) returning id";
  const { rows } = await connection.query<{ id: string }>(insert, [item]);
  for (const { id } of rows) {
    // The cast says that the payload is JSON. For bytes, a Buffer needs ::bytea.
    const publish = "select trunkline.publish_later($1, $2::jsonb, $3)";
    await connection.query(publish, [topic, { id: Number(id), item }, id]);
  }
}

async function inTransaction(work: (connection: pg.PoolClient) => Promise<void>): Promise<void> {
  const connection = await pool.connect();
  try {
    await connection.query("begin");
    await work(connection);
    await connection.query("commit");
  } catch (error) {
    await connection.query("rollback");
    throw error;
  } finally {
    connection.release();
  }
}
