/// <reference lib="esnext.disposable" preserve="true" />

export { Code } from "@connectrpc/connect";
export { Client, type TopicSettings } from "./client.js";
export type { ClientOptions } from "./connection.js";
export type { Consumer, ConsumerEvent, ConsumerOptions } from "./consumer.js";
export { TrunklineError } from "./error.js";
export type { Message, Outgoing, OutgoingParts } from "./message.js";
export type { Producer, ProducerOptions } from "./producer.js";
export type { Receipt } from "./receipt.js";
