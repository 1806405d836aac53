// When a call that broke is made again, and how long to wait before.

import type { Duration } from "@bufbuild/protobuf/wkt";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** Whether the same call may do better later: the broker or the connection went away, or there was
 * no answer in time. */
export function mayRetry(error: unknown): error is ConnectError {
  if (!(error instanceof ConnectError)) return false;
  switch (error.code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
      return true;
    // So Connect tells of a connection that broke. What the broker itself says has details.
    case Code.Canceled:
    case Code.Aborted:
    case Code.Internal:
      return error.details.length === 0;
    default:
      return false;
  }
}

/** How long to wait after so many failures in a row: what the broker asks for, and on top what grows
 * and is cut by chance, so that clients of one broker do not come back all at once. */
export function pauseBeforeRetryMs(failures: number, asked: Duration | undefined): number {
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return (asked ? durationMs(asked) : 0) + Math.random() * grown;
}

/** How long the broker asks to wait, if it says anything. */
export function retryDelay(error: ConnectError): Duration | undefined {
  return error.findDetails(RetryInfoSchema)[0]?.retryDelay;
}
