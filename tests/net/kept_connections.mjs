// Makes requests, and then a WebSocket, again and again: Node takes a connection that it has kept, where there is one.
const [url, key] = process.argv.slice(2);
const ask = () => fetch(`${url}/queue/q/count`, { headers: { Authorization: `Bearer ${key}` } });
let opened = 0;
for (let round = 0; round < 20; round++) {
  await Promise.all(Array.from({ length: 1 + (round % 4) }, async () => (await ask()).text()));
  if (round % 2) await new Promise(setImmediate);
  await new Promise((resolve) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/queue/q`, [`bullmq-proxy.v1`, `bearer.${key}`]);
    socket.onopen = () => (opened++, socket.close());
    socket.onclose = socket.onerror = resolve;
  });
}
console.log(opened);
process.exit(0);
