// A server between a test and the broker: it passes calls on, except those that the test answers itself.

import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ConsumerService } from "../gen/trunkline/v1/consumer_pb.js";
import { ProducerService } from "../gen/trunkline/v1/producer_pb.js";
import { consumers, producers } from "./shared.ts";

type Answers = Partial<ServiceImpl<typeof ConsumerService> & ServiceImpl<typeof ProducerService>>;

export class Relay {
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #server;

  private constructor(answers: Answers) {
    const routes = connectNodeAdapter({
      connect: false,
      grpcWeb: false,
      routes: (router) => {
        router.service(ConsumerService, {
          registerConsumer: (request) => consumers.registerConsumer(request),
          consume: (request, { signal }) => consumers.consume(request, { signal, timeoutMs: 0 }),
          commit: (request) => consumers.commit(request),
          ...answers,
        });
        router.service(ProducerService, {
          registerProducer: (request) => producers.registerProducer(request),
          publishStream: (requests, { signal }) =>
            producers.publishStream(requests, { signal, timeoutMs: 0 }),
          ...answers,
        });
      },
    });
    this.#server = createServer(routes);
    this.#server.on("session", (session) => this.#sessions.add(session));
  }

  static async start(answers: Answers): Promise<Relay> {
    const relay = new Relay(answers);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get target(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  [Symbol.dispose](): void {
    for (const session of this.#sessions) session.destroy();
    this.#server.close();
  }
}
