// Who has signed in: the key, what it may do, and the connections that the views share.

import { FlowProducer, Queue, UnreachableError } from "../client.js";
import { errorOf } from "../client-link.js";
import { FUNCTIONS } from "./functions.js";

const STORED = "bullmq-proxy key"; // in sessionStorage: it ends with the tab
const TIMEOUT = 10_000; // ms for an answer
const GATEWAY = new URL("../", import.meta.url);
const KEY = /^[!-~]+$/;

export const storedKey = () => sessionStorage.getItem(STORED);

export class Session {
  #queue = null;
  #flows = null;

  constructor(key, told) {
    this.key = key ?? undefined;
    this.told = told; // listens to `connected`, `disconnected` and `error` of the connections
    this.who = { key: "", permissions: [], queues: [] };
  }

  /** Sign in; a refusal is thrown. Without a key that is what a gateway without keys allows. */
  static async open(key, told) {
    if (key && !KEY.test(key)) throw new TypeError("A key has visible ASCII characters only");
    const session = new Session(key, told);
    session.who = await session.ask("whoami");
    if (key) sessionStorage.setItem(STORED, key);
    return session;
  }

  close() {
    this.#queue?.close();
    this.#flows?.close();
  }

  static forget() {
    sessionStorage.removeItem(STORED);
  }

  /** Ask for a page of the gateway's, such as `connections`. */
  async ask(path, method = "GET", body = undefined) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer;
    try {
      const how = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT) };
      answer = await (await fetch(new URL(path, GATEWAY), how)).json();
    } catch {
      throw new UnreachableError("The gateway does not answer");
    }
    if (answer.err) throw errorOf(answer.err);
    return Array.isArray(answer) ? answer : answer.ok;
  }

  /** Return the connection to a queue; there is one at a time. */
  queue(name) {
    if (this.#queue?.name !== name) {
      this.#queue?.close();
      this.#queue = this.#tells(new Queue(name, this.options));
    }
    return this.#queue;
  }

  get flows() {
    return (this.#flows ??= this.#tells(new FlowProducer(this.options)));
  }

  get options() {
    return { url: GATEWAY.href, key: this.key };
  }

  #tells(client) {
    for (const [name, listener] of Object.entries(this.told)) client.on(name, listener);
    return client;
  }

  may(permission) {
    return this.who.permissions.includes(permission);
  }

  /** Return why the key may not do what needs one of these permissions, or null. */
  lacks(...permissions) {
    if (permissions.some((each) => this.may(each))) return null;
    return `The key ${this.who.key} needs the permission ${permissions.join(" or ")}`;
  }

  /** Return why the key may not call a function, or null. */
  lacksFor(fn) {
    return this.lacks(...FUNCTIONS[fn].needs);
  }
}
