// Perfetto's trace processor in node, built as its user interface has it: a web worker, and WebAssembly.
//
//     node trace_processor.mjs FOLDER TRACE SQL...     FOLDER has engine_bundle.js and trace_processor*.wasm
//
// Prints JSON: {"error": what the import failed with or null, "rows": the rows of each query}. Cells are integers, strings and nulls.
// Requests and replies are TraceProcessorRpc of Perfetto's protos/perfetto/trace_processor/trace_processor.proto.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createContext, runInContext } from "node:vm";

const [folder, trace, ...queries] = process.argv.slice(2);

// -- protocol buffers --------------------------------------------------------------------------------

function varint(value) {
  const bytes = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
}

const integer = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field, value) => Buffer.concat([varint((field << 3) | 2), varint(value.length), value]);

function varints(message, at = 0, count = Infinity) {
  const found = [];
  while (at < message.length && found.length < count) {
    let value = 0n;
    for (let shift = 0n, more = true; more; shift += 7n) {
      value |= BigInt(message[at] & 127) << shift;
      more = message[at++] > 127;
    }
    found.push(value);
  }
  return [found, at];
}

// All values of a field: integers as BigInt, others as bytes.
function values(message, wanted) {
  const found = [];
  for (let at = 0; at < message.length; ) {
    let numbers, value;
    [numbers, at] = varints(message, at, 1);
    const [field, kind] = [Number(numbers[0] >> 3n), Number(numbers[0] & 7n)];
    [numbers, at] = kind === 0 || kind === 2 ? varints(message, at, 1) : [[], at];
    if (kind === 0) value = numbers[0];
    else {
      const size = kind === 2 ? Number(numbers[0]) : kind === 1 ? 8 : 4;
      value = message.subarray(at, (at += size));
    }
    if (field === wanted) found.push(value);
  }
  return found;
}

const text = (message, field) => values(message, field).map((each) => Buffer.from(each).toString())[0] || null;

// -- the worker --------------------------------------------------------------------------------------

class XMLHttpRequest {
  open(_, address) {
    this.path = join(folder, new URL(address, "file:///").pathname);
  }
  send() {
    this.response = readFileSync(this.path);
  }
}

let replies = [];
const port = { postMessage: (reply) => replies.push(Buffer.from(reply)) };
const location = { href: "file:///engine_bundle.js", protocol: "file:", host: "" };
const worker = { XMLHttpRequest, URL, WorkerGlobalScope: Object, location, setTimeout };
worker.console = { log: console.error, warn: console.error, error: console.error };
// By which older builds know a worker.
worker.importScripts = () => {};
worker.performance = performance;
worker.crypto = crypto;
worker.TextDecoder = TextDecoder;
worker.self = createContext(worker);
runInContext(readFileSync(join(folder, "engine_bundle.js"), "utf8"), worker);
const Bytes = runInContext("Uint8Array", worker);
await new Promise((ready) => setTimeout(ready));
worker.onmessage({ data: port });

const METHODS = { append: 1, finalize: 2, query: 3 };
let sequence = 0;

function call(method, ...args) {
  replies = [];
  const request = Buffer.concat([integer(1, sequence++), integer(2, METHODS[method]), ...args]);
  port.onmessage({ data: Bytes.from(bytes(1, request)) });
  const messages = values(Buffer.concat(replies), 1);
  const failed = messages.map((each) => text(each, 5)).find((each) => each);
  if (failed || !messages.length) throw new Error(`${method}: ${failed ?? "no reply"}`);
  return messages;
}

function rows(sql) {
  const cells = [];
  let columns = 0;
  for (const result of call("query", bytes(103, bytes(1, Buffer.from(sql)))).flatMap((each) => values(each, 203))) {
    const error = text(result, 2);
    if (error) throw new Error(`${sql}: ${error}`);
    columns ||= values(result, 1).length;
    for (const batch of values(result, 3)) {
      const integers = values(batch, 2).flatMap((each) => varints(each)[0]);
      const strings = values(batch, 5).flatMap((each) => Buffer.from(each).toString().split("\0"));
      for (const kind of values(batch, 1).flatMap((each) => [...each])) {
        if (kind === 1) cells.push(null);
        else if (kind === 2) cells.push(Number(BigInt.asIntN(64, integers.shift())));
        else if (kind === 4) cells.push(strings.shift());
        else throw new Error(`${sql}: a cell of kind ${kind}`);
      }
    }
  }
  return Array.from({ length: columns && cells.length / columns }, (_, row) =>
    cells.slice(row * columns, (row + 1) * columns),
  );
}

// -- the command -------------------------------------------------------------------------------------

const data = readFileSync(trace);
const finished = [];
for (let at = 0; at < data.length; at += 1 << 20) {
  finished.push(...call("append", bytes(101, data.subarray(at, at + (1 << 20)))).flatMap((each) => values(each, 201)));
}
let error = finished.map((each) => text(each, 2)).find((each) => each);
error ??= call("finalize").flatMap((each) => values(each, 212)).map((each) => text(each, 1)).find((each) => each);
writeFileSync(1, JSON.stringify({ error: error ?? null, rows: queries.map(rows) }));
process.exit(0);
