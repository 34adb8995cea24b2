// The addresses of the views, behind the `#`.

/** Return the parts of the present address, such as `["queue", "mails", "job", "1"]`. */
export function route() {
  const [, ...parts] = location.hash.split("/");
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return []; // no address of ours
  }
}

export const queueHref = (name, ...rest) => `#/queue/${[name, ...rest].map(encodeURIComponent).join("/")}`;
