// A broker for a single test, on the same database as the broker that all tests share.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Can be ended, and started again on the same port. */
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
    if (!this.#isRunning) return;
    this.#process?.kill("SIGTERM");
    const [code] = await once(this.#process ?? assert.fail(), "exit");
    assert.equal(code, 0);
  }

  /** Ends the broker without a chance to do anything, and waits until it has ended. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await once(this.#process ?? assert.fail(), "exit");
  }

  /** Has the broker do nothing, with its connections open. */
  suspend(): void {
    this.#process?.kill("SIGSTOP");
  }

  /** Has a suspended broker go on. */
  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.stop();
  }

  get #isRunning(): boolean {
    return this.#process?.exitCode === null && this.#process.signalCode === null;
  }
}
