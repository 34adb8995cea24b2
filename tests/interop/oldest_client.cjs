'use strict';
// A client as the project's first description would have it: no ack, no confirm, nothing that came later.
//
// It adds a job, processes it and listens for its end, then prints what it has seen as one line of JSON.

const WebSocket = require('ws');

const [base, queue, token] = process.argv.slice(2);
const connect = path => new WebSocket(`${base}${path}?token=${token}`);

const seen = {};
const worker = connect(`/queues/${queue}/process/1`);
const producer = connect(`/queues/${queue}`);
const listener = new WebSocket(`${base}/queues/${queue}/events?events=completed,failed&token=${token}`);

worker.on('message', text => {
  const message = JSON.parse(text);
  (seen.pushed ??= []).push({ id: message.id, type: message.data.type, payload: message.data.payload });
  if (!message.data.payload) throw new Error(`no job: ${text}`);
  const outcome = message.data.payload.fail
    ? { err: { message: 'no such address', stack: 'Error: no such address\n    at send (mail.js:1:1)' } }
    : { result: null };
  worker.send(JSON.stringify({ id: message.id, data: outcome }));
});

producer.on('message', text => {
  const message = JSON.parse(text);
  (seen.replies ??= []).push({ id: message.id, name: message.data.ok.name });
});

listener.on('message', text => {
  const { event, args } = JSON.parse(text).data;
  (seen.events ??= []).push({ event, ...args[0] });
  if (seen.events.length < 2) return;
  console.log(JSON.stringify(seen));
  for (const socket of [worker, producer, listener]) socket.close();
});

let opened = 0;
for (const socket of [worker, producer, listener]) {
  socket.on('error', error => {
    console.error(error);
    process.exit(1);
  });
  socket.on('open', () => {
    if (++opened < 3) return;
    [{ to: 'a@b.c' }, { to: 'nobody', fail: true }].forEach((payload, id) =>
      producer.send(JSON.stringify({ id, data: { fn: 'add', args: [`mail ${id}`, payload] } })),
    );
  });
}
