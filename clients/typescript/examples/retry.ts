// Decides whether to retry a failed call, and how long to wait first.

import type { Duration } from "@bufbuild/protobuf/wkt";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** Whether the same call may succeed later: the broker or the connection went away, or no answer
 * came in time. */
export function mayRetry(error: unknown): error is ConnectError {
  if (!(error instanceof ConnectError)) return false;
  switch (error.code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
      return true;
    // Connect reports a broken connection with these codes. The broker's own errors have details.
    case Code.Canceled:
    case Code.Aborted:
    case Code.Internal:
      return error.details.length === 0;
    default:
      return false;
  }
}

/** How long to wait after this many failures in a row: the delay that the broker asks for, plus a
 * random backoff with a growing limit, so that clients do not all reconnect at once. */
export function pauseBeforeRetryMs(failures: number, asked: Duration | undefined): number {
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return (asked ? durationMs(asked) : 0) + Math.random() * grown;
}

/** How long the broker asks to wait; undefined if it does not ask. */
export function retryDelay(error: ConnectError): Duration | undefined {
  return error.findDetails(RetryInfoSchema)[0]?.retryDelay;
}
