// Errors that tell a program what it can do about them.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import * as google from "../gen/google/rpc/error_details_pb.js";
import type { PublishRefusal } from "../gen/trunkline/v1/producer_pb.js";

/** Why a call failed. */
export class TrunklineError extends Error {
  override readonly name = "TrunklineError";
  /** The gRPC code. */
  readonly code: Code;
  /** The reason, such as `TOPIC_NOT_FOUND`; empty if no broker gave one. */
  readonly reason: string = "";
  /** Every value that the message names. */
  readonly metadata: Readonly<Record<string, string>> = {};
  /** How long the broker asks to wait before a retry; undefined if it does not ask. */
  readonly retryDelayMs: number | undefined;
  /** The fields that were refused. */
  readonly fieldViolations: readonly { field: string; description: string }[] = [];

  constructor(message: string, code: Code, details: Partial<TrunklineError> = {}) {
    super(message);
    this.code = code;
    Object.assign(this, details);
  }

  /** Reads the details of what a stub has thrown. */
  static from(cause: unknown): TrunklineError {
    if (cause instanceof TrunklineError) return cause;
    const error = ConnectError.from(cause);
    const [{ reason = "", metadata = {} } = {}] = error.findDetails(google.ErrorInfoSchema);
    const [{ retryDelay } = {}] = error.findDetails(google.RetryInfoSchema);
    const [{ fieldViolations: fields = [] } = {}] = error.findDetails(google.BadRequestSchema);
    const retryDelayMs = retryDelay && durationMs(retryDelay);
    const fieldViolations = fields.map(({ field, description }) => ({ field, description }));
    const details = { reason, metadata, retryDelayMs, fieldViolations, cause };
    return new TrunklineError(error.rawMessage, error.code, details);
  }

  /** @internal The error of a request that was refused on a publish stream. */
  static refused({ message, code, reason, metadata, retryDelay }: PublishRefusal): TrunklineError {
    const retryDelayMs = retryDelay && durationMs(retryDelay);
    return new TrunklineError(message, code, { reason, metadata, retryDelayMs });
  }

  /** @internal The error of messages that may be stored or not. */
  static unknownOutcome(problem: string, cause?: TrunklineError): TrunklineError {
    return new TrunklineError(problem, Code.Unavailable, { reason: "OUTCOME_UNKNOWN", cause });
  }

  /** @internal The error of an argument that no broker would accept. */
  static invalid(field: string, problem: string, limit?: number): TrunklineError {
    return new TrunklineError(`${field} ${problem}`, Code.InvalidArgument, {
      reason: "INVALID_FIELD",
      metadata: limit === undefined ? { field } : { field, limit: `${limit}` },
      fieldViolations: [{ field, description: problem }],
    });
  }

  /** @internal Whether a stream or a commit that failed with this error is tried again. */
  get isTransient(): boolean {
    if (this.code === Code.Unavailable || this.retryDelayMs !== undefined) return true;
    // Connect reports a broken connection with these codes. A broker gives a reason.
    const broken = [
      Code.Canceled,
      Code.Unknown,
      Code.DeadlineExceeded,
      Code.Aborted,
      Code.Internal,
      Code.ResourceExhausted,
    ];
    return broken.includes(this.code) && this.reason === "";
  }
}
