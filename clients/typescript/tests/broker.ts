// A broker for a single test, on the same database as the broker that all tests share.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Can be stopped, and started again on the same port. */
export class Broker {
  target = "127.0.0.1:0";
  #process: ChildProcess | undefined;

  static async start(): Promise<Broker> {
    const broker = new Broker();
    await broker.start();
    return broker;
  }

  async start(): Promise<void> {
    const { TRUNKLINE_BIN: command, TRUNKLINE_DATABASE_URL: database } = process.env;
    assert(command && database, "TRUNKLINE_BIN and TRUNKLINE_DATABASE_URL must be set");
    const options = ["--listen", this.target, "--database-url", database, "--log", "error"];
    const started = spawn(command, ["serve", ...options], { stdio: ["ignore", "pipe", "inherit"] });
    this.#process = started;
    const [ready]: string[] = await once(createInterface(started.stdout), "line");
    this.target = ready?.replace("listening on ", "") ?? "";
  }

  /** Stops the broker as an operator does, with SIGTERM, and waits until it has ended. */
  async stop(): Promise<void> {
    if (this.#process?.exitCode !== null) return;
    this.#process.kill("SIGTERM");
    const [code] = await once(this.#process, "exit");
    assert.equal(code, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
