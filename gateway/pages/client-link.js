// The connection under client.js: made again when it breaks, with the calls under way. What stands between "generated" and
// "end" is made by `make docs`.

/** Limits; times in milliseconds. They may be changed before a client is made. */
export const limits = {
  openTimeout: 10_000, // for a handshake
  firstPause: 200, // before the second try to connect; each further one is twice as long, and random from its half on
  longestPause: 10_000, // a call, which waits for linkTimeout, sees more tries than one
  refusal: 50, // after which a connection that says nothing counts as open: browsers learn of a refusal only then
  laterPause: 1000, // before the next try, at least, when the gateway says that it has no room, or cannot serve
  settled: 1000, // a connection that was open for so long works: the pauses begin with the first one again
  quiet: 20_000, // after which a silent gateway is asked for a sign of life, and after as much again given up
  mostCalls: 10_000, // without a reply; a further one is refused
  linkTimeout: 30_000, // for which a call waits for a connection
  repeats: 5, // of a call after an error that may pass
  repeatPause: 500, // before that; the second one is twice as long, and so on
  mostEvents: 10_000, // that wait for a loop; then the connection is closed until they are taken, and goes on behind them
  grace: 10_000, // for which the gateway keeps a worker's jobs when its connection breaks, unless the worker says otherwise
  closeTimeout: 30_000, // for which a worker that closes waits for its handlers
  kept: 1000, // finished jobs that stay, at least, for an add to be safe to repeat
  keptAge: 600, // s that they stay, at least
};

/** What the gateway, or this client, refuses: `code` says why for programs, `message` for people. */
export class ProxyError extends Error {
  constructor(message, code = new.target.code) {
    super(message);
    this.code = code;
    this.name = new.target.name;
  }
}
// generated: errors
export class InvalidMessageError extends ProxyError { static code = "INVALID_MESSAGE"; }
export class InvalidArgumentsError extends ProxyError { static code = "INVALID_ARGUMENTS"; }
export class UnknownFunctionError extends ProxyError { static code = "UNKNOWN_FUNCTION"; }
export class UnauthorizedError extends ProxyError { static code = "UNAUTHORIZED"; }
export class ForbiddenError extends ProxyError { static code = "FORBIDDEN"; }
export class NotFoundError extends ProxyError { static code = "NOT_FOUND"; }
export class NotLockedError extends ProxyError { static code = "NOT_LOCKED"; }
export class ConflictError extends ProxyError { static code = "CONFLICT"; }
export class TooManyRequestsError extends ProxyError { static code = "TOO_MANY_REQUESTS"; }
export class RedisUnavailableError extends ProxyError { static code = "REDIS_UNAVAILABLE"; }
export class KeysUnavailableError extends ProxyError { static code = "KEYS_UNAVAILABLE"; }
export class OutcomeUnknownError extends ProxyError { static code = "OUTCOME_UNKNOWN"; }
export class WaitTimeoutError extends ProxyError { static code = "TIMEOUT"; }
export class ShuttingDownError extends ProxyError { static code = "SHUTTING_DOWN"; }
export class InternalError extends ProxyError { static code = "INTERNAL"; }
export class ClosedError extends ProxyError { static code = "CLOSED"; }
export class UnreachableError extends ProxyError { static code = "UNREACHABLE"; }
const CLASSES = Object.fromEntries([
  InvalidMessageError, InvalidArgumentsError, UnknownFunctionError, UnauthorizedError, ForbiddenError, NotFoundError,
  NotLockedError, ConflictError, TooManyRequestsError, RedisUnavailableError, KeysUnavailableError, OutcomeUnknownError,
  WaitTimeoutError, ShuttingDownError, InternalError, ClosedError, UnreachableError,
].map((each) => [each.code, each]));
// end
export const errorOf = ({ code, message }) => new (CLASSES[code] ?? ProxyError)(message, code);

/** Thrown by a handler: the job fails for good, whatever attempts it has left. */
export class UnrecoverableError extends Error {}

// docs/failures.md, "After a refusal"; what is not here means: later.
const STOP = new Set([400, 401, 403, 404, 405, 413, 414, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000]);
// The codes of refused handshakes, and what they mean for calls. Nothing has been looked at that was sent before.
// generated: refusals
const REFUSALS = {
  4500: "INVALID_ARGUMENTS", 4501: "UNAUTHORIZED", 4502: "FORBIDDEN", 4503: "FORBIDDEN", 4504: "NOT_FOUND", 4505:
  "INVALID_MESSAGE", 4506: "TOO_MANY_REQUESTS", 4507: "INTERNAL", 4508: "REDIS_UNAVAILABLE", 4509: "SHUTTING_DOWN",
};
const LATER = new Set([4506, 4507, 4508, 4509]);
// end
const AT_ONCE = new Set([1001, 4002, 4003, 4004]);
const WRONG_KEY = new Set([401, 4501]); // a token may have expired on its way: once the next one is tried
const MAY_PASS = new Set(["KEYS_UNAVAILABLE", "OUTCOME_UNKNOWN", "REDIS_UNAVAILABLE", "SHUTTING_DOWN"]);
const OK_UPGRADE = 426; // a plain GET of a path for WebSockets: nothing else was wrong
const HEADER_TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;
const HERE = /^https?:/.test(import.meta.url) ? new URL(".", import.meta.url).href : "ws://127.0.0.1:8080";
export const queuePath = (name, rest = "") => `/queue/${encodeURIComponent(name)}${rest}`;
const pauseBefore = (tries) =>
  Math.min(limits.longestPause, limits.firstPause * 2 ** Math.min(tries, 16)) * (0.5 + Math.random() / 2);

/** Listeners by the names of what they wait for; `error` and `lost` go to the console where nobody listens. */
export class Emitter {
  #listeners = new Map();

  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
    return this;
  }

  off(name, listener) {
    this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter((each) => each !== listener));
    return this;
  }

  _emit(name, ...args) {
    const listeners = this.#listeners.get(name) ?? [];
    if (!listeners.length && (name === "error" || name === "lost")) console.warn(`bullmq-proxy: ${name}:`, ...args.map(String));
    for (const listener of listeners) {
      try {
        listener(...args);
      } catch (error) {
        console.error(`bullmq-proxy: a listener to ${name} has failed:`, error);
      }
    }
  }
}

/** One connection that is made again when it breaks. */
export class Link {
  error = null; // why there will be none any more
  wasClosed = false; // by `close`, not by the gateway
  trouble = new UnreachableError("The gateway has not been asked yet");
  socket = null; // while it is open
  #running = false;
  #wasWrong = false; // the last key that a function has returned
  #end = null; // ends the present connection
  #wake = null; // ends the present pause
  #waiters = [];

  constructor(owner, { url = HERE, key, WebSocket = globalThis.WebSocket } = {}, path, query = () => ({})) {
    if (!WebSocket) throw new TypeError("There is no WebSocket here: hand one in, as { WebSocket }");
    Object.assign(this, { owner, key, path, query, WebSocket, base: url.replace(/\/+$/, "").replace(/^http/, "ws") });
  }

  start() {
    if (this.#running || this.error) return;
    this.#running = true;
    this.#run().catch((error) => this.#stop(new ProxyError(`The connection is given up: ${error}`, "INTERNAL")));
  }

  send(id, data) {
    this.socket?.send(JSON.stringify({ id, data }));
  }

  /** Let the connection end; another one follows. */
  restart() {
    this.#end?.(1006, "given up");
  }

  wait() {
    return this.error || !this.#running ? Promise.resolve() : new Promise((resolve) => this.#waiters.push(resolve));
  }

  close() {
    this.wasClosed ||= !this.error;
    this.#stop(new ClosedError("This client was closed"));
    this.#end?.(1000, "closed");
    this.#wake?.();
  }

  #stop(error) {
    if (this.error) return;
    this.error = error;
    this.owner.stopped(error);
    for (const resolve of this.#waiters) resolve();
  }

  async #run() {
    for (let tries = 0; !this.error; tries++) {
      await this.owner.before?.();
      const { code, error, least = 0, openFor = 0 } = await this.#connect();
      this.trouble = error;
      if (this.error) return;
      const isWrong = WRONG_KEY.has(code) && typeof this.key === "function";
      const isFinal = STOP.has(code) || (code >= 4500 && code < 5000 && !LATER.has(code));
      if (isFinal && (!isWrong || this.#wasWrong)) return this.#stop(error);
      this.#wasWrong = isWrong;
      if (openFor >= limits.settled) tries = 0;
      const pause = Math.max(least, AT_ONCE.has(code) && !tries ? 0 : pauseBefore(tries));
      this.owner.waits(error);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
    }
  }

  /** Be connected until that ends; resolves with the reason. */
  async #connect() {
    let key;
    try {
      key = await this.#show();
    } catch (error) {
      return { code: 1006, error: new UnreachableError(`There is no key: ${error?.message ?? error}`) };
    }
    if (this.error) return {}; // closed meanwhile
    const query = new URLSearchParams(this.query());
    const hidden = key !== undefined && HEADER_TOKEN.test(key);
    if (key !== undefined && !hidden) query.set("token", key);
    const url = `${this.base}${this.path}${query.size ?? `${query}` ? `?${query}` : ""}`;
    const socket = new this.WebSocket(url, ["bullmq-proxy.v1", ...(hidden ? [`bearer.${key}`] : [])]);
    let opened = 0, settling = null;
    const [code, reason] = await new Promise((resolve) => {
      let heard = true;
      const opening = setTimeout(() => this.#end?.(1006, "no handshake in time"), limits.openTimeout);
      const watching = setInterval(() => {
        if (!opened) return;
        if (!heard && heard !== null) this.send("alive", this.owner.probe ?? { fn: "on", args: [] });
        if (heard === null) this.#end?.(1006, "the gateway gives no sign of life");
        heard = heard ? false : null;
      }, limits.quiet);
      this.#end = (code, reason) => {
        this.#end = socket.onopen = socket.onmessage = socket.onclose = null;
        socket.onerror = () => {}; // some implementations throw for errors that nobody listens to
        clearTimeout(opening);
        clearTimeout(settling);
        clearInterval(watching);
        this.socket = null;
        if (opened) this.owner.broke(code in REFUSALS);
        socket.close();
        resolve([code, reason]);
      };
      socket.onopen = () => {
        clearTimeout(opening);
        opened = Date.now();
        this.socket = socket;
        this.owner.opened();
        settling = setTimeout(settle, limits.refusal);
      };
      const settle = () => {
        if (settling === null) return;
        clearTimeout(settling);
        settling = null;
        this.owner.connected();
      };
      socket.onmessage = (message) => {
        heard = true;
        settle();
        try {
          const { id, data } = JSON.parse(message.data);
          if (id === null && data.type === "expires") this.#renew(socket);
          else this.owner.received(id, data);
        } catch (error) {
          this.#stop(new ProxyError(`The connection is given up: ${error}`, "INTERNAL"));
          this.#end?.(1002, String(error));
        }
      };
      socket.onclose = socket.onerror = ({ code, reason }) => this.#end?.(code || 1006, reason || "the connection broke");
    });
    if (code in REFUSALS) {
      return { code, error: errorOf({ code: REFUSALS[code], message: reason }), least: LATER.has(code) ? limits.laterPause : 0 };
    }
    if (!opened && !this.error) return this.#refusal(url, key);
    const kind = STOP.has(code) ? ClosedError : UnreachableError;
    return { code, error: new kind(`The connection was closed with ${code}: ${reason}`), openFor: Date.now() - opened };
  }

  /** The key to show: a function is asked for it each time. */
  async #show() {
    if (typeof this.key !== "function") return this.key;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`none came for ${limits.openTimeout} ms`)), limits.openTimeout);
    });
    try {
      return await Promise.race([this.key(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Hand in a fresh token before the present one ends. */
  async #renew(socket) {
    if (typeof this.key !== "function") return;
    try {
      const token = await this.#show();
      if (this.socket === socket) this.send("renew", { fn: "renew", args: [token] });
    } catch {
      // The connection is closed when the token ends; the next one asks again, and tells why there is none.
    }
  }

  /** Ask by a plain request why a handshake failed that was answered without a close code, by a proxy for example. */
  async #refusal(url, key) {
    const unknown = { code: 1006, error: new UnreachableError(`No connection to ${this.base}`) };
    try {
      const headers = key === undefined ? {} : { Authorization: `Bearer ${key}` };
      const signal = AbortSignal.timeout(limits.openTimeout);
      const response = await fetch(url.replace(/^ws/, "http"), { headers, signal });
      if (response.status === OK_UPGRADE) return unknown;
      const least = Math.min(1000 * (Number(response.headers.get("Retry-After")) || 0), limits.longestPause);
      return { code: response.status, error: errorOf((await response.json()).err), least };
    } catch {
      return unknown; // there is no gateway, or it lets no page of this origin read
    }
  }
}

/** The calls under way on one link. */
export class Calls {
  #pending = new Map();
  #next = 1;

  constructor(link) {
    this.link = link;
  }

  call(data, safe, writes) {
    const { link } = this;
    if (link.error) return Promise.reject(errorOf(link.error));
    if (this.#pending.size >= limits.mostCalls) {
      const message = `${limits.mostCalls} calls have no reply yet: wait for some, or use addBulk`;
      return Promise.reject(new TooManyRequestsError(message));
    }
    link.start();
    return new Promise((resolve, reject) => {
      const id = `c${this.#next++}`;
      const settle = (done) => (value) => (clearTimeout(call.timer), this.#pending.delete(id), done(value));
      const text = JSON.stringify({ id, data: { ...data, made: undefined } });
      const call = { text, data, safe, writes, resolve: settle(resolve), reject: settle(reject), repeats: 0 };
      this.#pending.set(id, call);
      this.#send(call);
    });
  }

  opened() {
    for (const call of this.#pending.values()) if (!call.sent && !call.paused) this.#send(call);
  }

  broke(refused) {
    for (const call of this.#pending.values()) {
      if (!call.sent) continue;
      if (refused) call.sent = false; // nobody has looked at it
      if (call.safe || refused) this.#waitForLink(call);
      else call.reject(new OutcomeUnknownError("The connection broke while the call was under way"));
    }
  }

  stopped(error) {
    for (const call of this.#pending.values()) {
      const unknown = call.sent && !call.safe;
      call.reject(unknown ? new OutcomeUnknownError("The connection ended while the call was under way") : errorOf(error));
    }
  }

  /** Take a reply; tells whether it was for a call. */
  replied(id, data) {
    const call = this.#pending.get(id);
    if (!call) return typeof id === "string";
    if (!data.err) {
      // A duplicate of the job that the first try has added is none.
      if (call.again && call.data.made && data.ok?.id === call.data.made) delete data.ok.duplicate;
      call.resolve(data.ok);
    } else if (!MAY_PASS.has(data.err.code) || !call.safe || call.repeats >= limits.repeats) {
      call.reject(errorOf(data.err));
    } else {
      Object.assign(call, { sent: false, paused: true, again: true });
      call.timer = setTimeout(() => ((call.paused = false), this.#send(call)), limits.repeatPause * 2 ** call.repeats++);
    }
    return true;
  }

  #send(call) {
    if (!this.link.socket) return this.#waitForLink(call);
    clearTimeout(call.timer);
    call.sent = true;
    this.link.socket.send(call.text);
  }

  #waitForLink(call) {
    call.again ||= Boolean(call.sent);
    call.sent = false;
    call.timer = setTimeout(() => {
      const kind = call.again && call.writes ? OutcomeUnknownError : UnreachableError;
      call.reject(new kind(`No connection for ${limits.linkTimeout} ms: ${this.link.trouble.message}`));
    }, limits.linkTimeout);
  }
}

// Which calls that write may be made a second time: those that add jobs under ids, which are made here if need be.

function newId() {
  const bytes = globalThis.crypto?.getRandomValues(new Uint8Array(16)) ?? Array.from({ length: 16 }, () => Math.random() * 256);
  return `j-${Array.from(bytes, (byte) => Math.floor(byte).toString(16).padStart(2, "0")).join("")}`;
}

function stays(keep) {
  if (keep === undefined || keep === null || typeof keep === "boolean") return !keep;
  if (typeof keep === "object") return stays(keep.count) && (keep.age ?? limits.keptAge) >= limits.keptAge;
  return keep < 0 || keep >= limits.kept;
}

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const keeps = (opts) => stays(opts.removeOnComplete) && stays(opts.removeOnFail);
const withId = (opts) => (isObject(opts ?? {}) ? { ...opts, jobId: opts?.jobId ?? newId() } : opts);
const isNode = (node) => keeps(node?.opts ?? {}) && (node?.children ?? []).every?.(isNode);
const named = (node) =>
  isObject(node) ? { ...node, opts: withId(node.opts), ...(node.children && { children: node.children.map(named) }) } : node;

/** The data of a call that writes, and whether it may be made twice. */
export function safeCall(api, fn, args) {
  if (fn === "addBulk" || api === "flows") {
    if (Array.isArray(args[0])) return [{ fn, args: [args[0].map(named), ...args.slice(1)] }, args[0].every(isNode)];
    return [{ fn, args: [named(args[0]), ...args.slice(1)] }, args.length === 1 && isNode(args[0])];
  }
  if (fn !== "add" && fn !== "addAndWait") return [{ fn, args }, false];
  const [name, data = {}, opts, ...rest] = args;
  const made = withId(opts);
  return [{ fn, args: [name, data, made, ...rest], made: opts?.jobId ? undefined : made?.jobId }, keeps(opts ?? {})];
}
