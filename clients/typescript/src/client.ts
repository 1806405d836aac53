// The client of a broker: topics, producers and consumers.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient, type Client as Stub } from "@connectrpc/connect";
import { AccessService } from "../gen/trunkline/v1/access_pb.js";
import { ConsumerService } from "../gen/trunkline/v1/consumer_pb.js";
import { LogEdge } from "../gen/trunkline/v1/message_pb.js";
import { OverviewService } from "../gen/trunkline/v1/overview_pb.js";
import { ProducerService } from "../gen/trunkline/v1/producer_pb.js";
import { SubscriptionService } from "../gen/trunkline/v1/subscription_pb.js";
import { type RetentionSchema, type Topic, TopicService } from "../gen/trunkline/v1/topic_pb.js";
import { type ClientOptions, Connection, Endpoint } from "./connection.js";
import { Consumer, type ConsumerOptions } from "./consumer.js";
import { TrunklineError } from "./error.js";
import { Producer, type ProducerOptions } from "./producer.js";

/** How long a call may take that is not a stream of the package's own. */
const CALL_TIMEOUT_MS = 30_000;

/** What a topic is created with. If it exists, what is given must be the same. */
export interface TopicSettings {
  description?: string;
  labels?: Record<string, string>;
  /** How long messages are kept; for ever by default. */
  retention?: MessageInitShape<typeof RetentionSchema>;
}

/** A broker, by its address: `127.0.0.1:50051`, `http://HOST:PORT` or `https://HOST:PORT`.
 *
 * It connects with the first call. Each producer and consumer has a connection of its own. */
export class Client {
  /** The generated stubs, for all other calls. They throw a `ConnectError`, which
   * `TrunklineError.from` reads. A call ends after 30 s unless it has a `timeoutMs`. */
  readonly topics: Stub<typeof TopicService>;
  readonly producers: Stub<typeof ProducerService>;
  readonly consumers: Stub<typeof ConsumerService>;
  readonly subscriptions: Stub<typeof SubscriptionService>;
  readonly access: Stub<typeof AccessService>;
  readonly overview: Stub<typeof OverviewService>;
  readonly #endpoint: Endpoint;
  readonly #connection: Connection;

  constructor(target: string, options: ClientOptions = {}) {
    this.#endpoint = new Endpoint(target, options);
    this.#connection = new Connection(this.#endpoint, { defaultTimeoutMs: CALL_TIMEOUT_MS });
    const { transport } = this.#connection;
    this.topics = createClient(TopicService, transport);
    this.producers = createClient(ProducerService, transport);
    this.consumers = createClient(ConsumerService, transport);
    this.subscriptions = createClient(SubscriptionService, transport);
    this.access = createClient(AccessService, transport);
    this.overview = createClient(OverviewService, transport);
  }

  /** Creates a topic, unless it exists. */
  async ensureTopic(name: string, settings: TopicSettings = {}): Promise<Topic> {
    const { topic } = await answer(
      this.topics.createTopic({ ...settings, topic: name, ifMissing: true }),
    );
    return present(topic);
  }

  /** Opens a producer, registered if it is not. Older producers of this id are fenced. */
  async producer(
    topic: string,
    producerId: string,
    options: ProducerOptions = {},
  ): Promise<Producer> {
    Producer.checkedLimits(options);
    refuseEmpty("producerId", producerId);
    const request = { topic, producerId, fence: true };
    const { producer } = await answer(this.producers.registerProducer(request));
    return new Producer(this.#endpoint, present(producer), options);
  }

  /** Opens a consumer, registered if it is not. */
  async consumer(
    topic: string,
    consumerId: string,
    options: ConsumerOptions = {},
  ): Promise<Consumer> {
    Consumer.checkedLimits(options);
    refuseEmpty("consumerId", consumerId);
    const request = { topic, consumerId, start: startOf(options.start), ifMissing: true };
    await answer(this.consumers.registerConsumer(request));
    return new Consumer(this.#endpoint, { consumers: this.consumers, topic, consumerId }, options);
  }

  /** Ends the connection of the stubs. Producers and consumers are closed by themselves. */
  close(): void {
    this.#connection.close();
  }
}

function startOf(start: ConsumerOptions["start"] = "earliest") {
  if (start === "earliest") return { case: "edge", value: LogEdge.EARLIEST } as const;
  if (start === "latest") return { case: "edge", value: LogEdge.LATEST } as const;
  if (typeof start === "bigint") return { case: "offset", value: start } as const;
  if (start instanceof Date) return { case: "time", value: timestampFromDate(start) } as const;
  throw TrunklineError.invalid("start", "must be earliest, latest, a bigint or a Date");
}

/** Refuses an id that the broker would take for the wish for a new one. */
function refuseEmpty(field: string, id: string): void {
  if (id === "") throw TrunklineError.invalid(field, "is empty");
}

/** Waits for an answer, and throws the package's own error if there is none. */
async function answer<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    throw TrunklineError.from(cause);
  }
}

/** What every broker answers with. */
function present<T>(value: T | undefined): T {
  if (value === undefined) throw TrunklineError.from("the answer of the broker is incomplete");
  return value;
}
