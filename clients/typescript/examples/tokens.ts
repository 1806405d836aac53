// Sends a token, which says who is calling, with each call.

import type { Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/**
 * A transport whose calls all have the token. Without TLS (`http:`), use it only for a broker on
 * this machine. With it, the broker's certificate must be signed by this authority, in PEM, or else
 * by one that Node.js trusts by itself.
 */
export function connectWithToken(baseUrl: string, token: string, authority?: Buffer) {
  const nodeOptions = authority ? { ca: authority } : {};
  return createGrpcTransport({
    baseUrl,
    nodeOptions,
    interceptors: [bearer(token)],
    defaultTimeoutMs: 10_000,
  });
}
