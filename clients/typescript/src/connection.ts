// Where the broker is, who calls, and connections to it.

import { BlockList, isIP } from "node:net";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { TrunklineError } from "./error.js";

/** How a client identifies itself, and whom it trusts. */
export interface ClientOptions {
  /** The token that each call carries, or a function that is asked for it before each call. */
  token?: string | (() => string | Promise<string>);
  /** The authority that signed the broker's certificate, in PEM; by default those of Node.js. */
  ca?: string | Uint8Array;
  /** A certificate of the client's own, in PEM, and its key. */
  cert?: string | Uint8Array;
  key?: string | Uint8Array;
}

/** How many bytes a broker may send on a stream before they are read: several frames. The connection
 * takes more, so that a stream that is read slowly does not hold up another call. */
const STREAM_WINDOW = 4 * 1024 * 1024;
const CONNECTION_WINDOW = 2 * STREAM_WINDOW;

/** How long a connection with an open call may be silent before a ping tests it. */
const PING_INTERVAL_MS = 30_000;

const thisMachine = new BlockList();
thisMachine.addSubnet("127.0.0.0", 8);
thisMachine.addAddress("::1", "ipv6");

/** A broker's address, with the credentials of its caller. */
export class Endpoint {
  readonly baseUrl: string;
  readonly tls: Omit<ClientOptions, "token">;
  readonly #token: ClientOptions["token"];

  constructor(target: string, { token, ...tls }: ClientOptions) {
    const [, scheme = "http", authority] =
      /^(?:(https?):\/\/)?([^/?#@\s]+:\d+)\/?$/.exec(target) ?? [];
    this.baseUrl = `${scheme}://${authority}`;
    this.tls = tls;
    this.#token = token;
    if (!authority || !URL.canParse(this.baseUrl)) {
      const form = "must have the form HOST:PORT, http://HOST:PORT or https://HOST:PORT";
      throw TrunklineError.invalid("target", `${JSON.stringify(target)} ${form}`);
    }
    for (const [name, pem] of Object.entries(tls)) {
      if (pem === undefined) continue;
      if (scheme === "http")
        throw TrunklineError.invalid(name, "needs a target that begins with https://");
      if (pem.length === 0) throw TrunklineError.invalid(name, "is empty");
    }
    if (typeof token === "string") checkToken(token);
    if (
      token !== undefined &&
      scheme === "http" &&
      !isThisMachine(new URL(this.baseUrl).hostname)
    ) {
      const way = "must begin with https://, or name this machine as 127.0.0.1, [::1] or localhost";
      throw TrunklineError.invalid(
        "token",
        `must not cross a network unencrypted: ${target} ${way}`,
      );
    }
  }

  /** The token there is now, if the client has one. */
  async token(): Promise<string | undefined> {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    if (token !== undefined) checkToken(token);
    return token;
  }
}

/** A connection to a broker, made by its first call. */
export class Connection {
  readonly transport: Transport;
  readonly #endpoint: Endpoint;
  readonly #session: Http2SessionManager;
  readonly #closed = new AbortController();
  #sentToken: string | undefined;

  constructor(endpoint: Endpoint, options: { defaultTimeoutMs?: number } = {}) {
    const { baseUrl, tls } = endpoint;
    const settings = { initialWindowSize: STREAM_WINDOW };
    this.#endpoint = endpoint;
    this.#session = new Session(
      baseUrl,
      { pingIntervalMs: PING_INTERVAL_MS },
      { ...tls, settings },
    );
    const authorize: Interceptor = (next) => async (request) => {
      this.#sentToken = await endpoint.token();
      if (this.#sentToken) request.header.set("authorization", `Bearer ${this.#sentToken}`);
      return await next(request);
    };
    const given = { sessionManager: this.#session, interceptors: [authorize] };
    this.transport = createGrpcTransport({ ...options, ...given, baseUrl });
  }

  /** For calls that are to end when the connection is closed. */
  get signal(): AbortSignal {
    return this.#closed.signal;
  }

  /** Whether a call that was refused may succeed with the token there is now. */
  async hasNewToken({ code }: TrunklineError): Promise<boolean> {
    return code === Code.Unauthenticated && (await this.#endpoint.token()) !== this.#sentToken;
  }

  close(reason = "the connection was closed"): void {
    this.#closed.abort(new ConnectError(reason, Code.Unavailable));
    this.#session.abort();
  }
}

class Session extends Http2SessionManager {
  override async request(...call: Parameters<Http2SessionManager["request"]>) {
    const stream = await super.request(...call);
    stream.session?.setLocalWindowSize(CONNECTION_WINDOW);
    return stream;
  }
}

/** Refuses what a header cannot hold, without repeating it. */
function checkToken(token: string): void {
  if (/^[\x21-\x7e]+$/.test(token)) return;
  throw TrunklineError.invalid("token", "is empty or holds characters that a header cannot");
}

function isThisMachine(hostname: string): boolean {
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const version = isIP(host);
  return version === 0
    ? host === "localhost"
    : thisMachine.check(host, version === 4 ? "ipv4" : "ipv6");
}
