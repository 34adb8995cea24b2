// Prints what AsyncAPI's own parser says of the document whose path is given second: its findings and what it has read.
// The packages are in node_modules, the folder that is given first.
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");

const [modules, path] = process.argv.slice(2);
const { Parser } = createRequire(`${modules}/`)("@asyncapi/parser");

new Parser().parse(readFileSync(path, "utf8")).then(({ document, diagnostics }) => {
  const found = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join("/") }));
  const channels = document ? document.channels().all().map((channel) => channel.id()) : [];
  const operations = document ? document.operations().all().map((operation) => operation.id()) : [];
  process.stdout.write(JSON.stringify({ found, channels, operations }));
});
