// Real sockets of the package `ws`, in node, without a global WebSocket.

import assert from "node:assert/strict";
import { once } from "node:events";
import { before, test } from "node:test";

import { Heartbeat, decode, encode, reconnecting } from "../heartbeat.js";
import { HELLO, until } from "./fake.js";
import { load, skip } from "./tools.js";

let ws;

before(() => {
  delete globalThis.WebSocket;
  if (!skip) ws = load("ws");
});

/** Answers, and sends messages back. A part is taken for the whole of it. */
const serve = async (port = 0) => {
  const server = new ws.WebSocketServer({ port });
  server.on("connection", (socket) => {
    const says = (frame) => socket.send(encode(frame));
    says(HELLO);
    socket.on("message", (bytes) => {
      const frame = decode(new Uint8Array(bytes));
      if (frame.type === "ping") says({ type: "pong", nonce: frame.nonce });
      if (frame.type === "data") says(frame);
      if (frame.type === "goodbye") {
        says({ type: "goodbye", code: 8, detail: "" });
        socket.close();
      }
    });
  });
  await once(server, "listening");
  return server;
};

const OPTIONS = { interval: 100, timeout: 300 };

test("it greets, beats, talks and leaves", { skip }, async () => {
  const server = await serve();
  const heartbeat = new Heartbeat(new ws.WebSocket(`ws://127.0.0.1:${server.address().port}`), OPTIONS);
  const got = [];
  let beats = 0;
  heartbeat.addEventListener("message", ({ detail }) => got.push([...detail]));
  heartbeat.addEventListener("beat", () => (beats += 1));
  await until(() => heartbeat.status.peer !== null);
  assert.equal(heartbeat.send(Uint8Array.of(1, 2, 3)), true);
  await until(() => got.length === 1 && beats >= 2);
  assert.deepEqual(got, [[1, 2, 3]]);
  assert.equal(await heartbeat.close(), true);
  server.close();
});

test("a server that isn't there is unreachable, and no error ends the process", { skip }, async () => {
  const server = await serve();
  const { port } = server.address();
  server.close();
  await once(server, "close");
  const nobody = new Heartbeat(new ws.WebSocket(`ws://127.0.0.1:${port}`), OPTIONS);
  const { cause, close } = await nobody.ended;
  assert.deepEqual([cause, close.code], ["unreachable", 1006]);

  // Nor one that comes behind the end.
  const given_up = new Heartbeat(new ws.WebSocket(`ws://127.0.0.1:${port}`), OPTIONS);
  given_up.abort();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal((await given_up.ended).type, "closed");
});

test("it comes back to a server that restarts", { skip }, async () => {
  let server = await serve();
  const { port } = server.address();
  const open = () => new Heartbeat(new ws.WebSocket(`ws://127.0.0.1:${port}`), OPTIONS);
  const always = reconnecting(open, { first: 50, longest: 100 });
  await until(() => always.current?.status.peer);
  server.close();
  for (const socket of server.clients) socket.close(1012, "restarting");
  const { detail } = await new Promise((resolve) => always.addEventListener("dead", resolve));
  assert.deepEqual(detail.close, { code: 1012, reason: "restarting", wasClean: true });
  server = await serve(port);
  await until(() => always.current?.status.peer);
  assert.equal(server.clients.size, 1);
  assert.equal(await always.close(), true);
  server.close();
});
