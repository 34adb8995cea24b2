// The JavaScript client of bullmq-proxy, for browsers, Node, Deno and Bun: see docs/clients.md. It speaks docs/protocol.md
// alone. Types, and what each method does, are in client.d.ts.

// generated: exports
export {
  ClosedError, ConflictError, ForbiddenError, InternalError, InvalidArgumentsError, InvalidMessageError,
  KeysUnavailableError, NotFoundError, NotLockedError, OutcomeUnknownError, ProxyError, RedisUnavailableError,
  ShuttingDownError, TooManyRequestsError, UnauthorizedError, UnknownFunctionError, UnreachableError,
  UnrecoverableError, WaitTimeoutError, limits,
} from "./client-link.js";
// end
export { FlowProducer, Job, Queue, QueueEvents } from "./client-queue.js";
export { Worker } from "./client-worker.js";
