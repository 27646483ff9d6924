// One connection, with a socket that a test plays.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Heartbeat, decode } from "../heartbeat.js";
import { FakeSocket, HELLO, answers, listenTo, sleep, until } from "./fake.js";

const PATIENT = { interval: 60_000, timeout: 1000, maxMissed: 3 };
const QUICK = { interval: 100, timeout: 60, maxMissed: 3 };

const connect = async (other = answers, options = PATIENT) => {
  const socket = new FakeSocket(other);
  const server = new Heartbeat(socket, options);
  const told = listenTo(server);
  await until(() => server.status.peer !== null);
  return { socket, server, told };
};

const messages = ({ sent }) => sent.filter(([tag]) => tag === 0).map((frame) => [...frame.slice(1)]);

test("bytes are sent as they are, and copied", async () => {
  const { socket, server } = await connect();
  const bytes = Uint8Array.of(1, 2, 3, 4);
  const view = new DataView(bytes.buffer, 1, 2);
  for (const body of [bytes, bytes.buffer, view, new Uint16Array([0x0201]), new Uint8Array(0)]) {
    assert.equal(server.send(body), true);
  }
  assert.deepEqual(messages(socket), [[1, 2, 3, 4], [1, 2, 3, 4], [2, 3], [1, 2], []]);

  // What waits isn't changed by its owner either.
  socket.bufferedAmount = 1e6;
  server.send(bytes);
  assert.equal(server.buffered, 1e6 + 5);
  bytes.fill(9);
  socket.bufferedAmount = 0;
  await until(() => messages(socket).length === 6);
  assert.deepEqual(messages(socket)[5], [1, 2, 3, 4]);
  assert.equal(server.buffered, 0);
  server.abort();
});

test("what isn't bytes is refused", async () => {
  const { socket, server } = await connect();
  for (const body of ["hello", [1, 2, 300], 7, null, undefined, {}, { length: 3 }, new Blob([])]) {
    assert.throws(() => server.send(body), TypeError);
  }
  const tooLong = new Uint8Array(HELLO.maxFrame + 1);
  assert.throws(() => server.send(tooLong), RangeError);
  assert.deepEqual(messages(socket), []);
  server.abort();
});

test("send says that nobody takes it", async () => {
  const opening = new FakeSocket(answers, 0);
  const early = new Heartbeat(opening, PATIENT);
  assert.equal(early.send(new Uint8Array(1)), false);
  early.abort();

  const { socket, server } = await connect();
  socket.readyState = 2;
  assert.equal(server.send(new Uint8Array(1)), false);
  assert.equal(server.probe(), false);
  assert.equal(server.finish(), false);
  assert.throws(() => server.send("hello"), TypeError);
  server.abort();
  assert.equal(server.send(new Uint8Array(1)), false);
  assert.deepEqual(messages(socket), []);
});

test("nothing is told after the last event, whoever leaves in which listener", async () => {
  // Answers a ping late, so that it is suspect and recovers; then all at once.
  const lively = (socket, frame) => {
    if (frame.type === "hello") socket.says(HELLO);
    if (frame.type === "ping") {
      setTimeout(() => {
        socket.says({ type: "pong", nonce: frame.nonce });
        socket.says({ type: "data", body: Uint8Array.of(1) });
        socket.says({ type: "fin" });
        socket.says({ type: "goodbye", code: 0, detail: "" });
      }, 450);
    }
  };
  const options = { interval: 100, timeout: 300, maxMissed: 3, linger: 500 };
  const leaves = async (leave, type) => {
    const server = new Heartbeat(new FakeSocket(lively), options);
    server.addEventListener(type, () => server[leave]());
    const told = listenTo(server);
    await server.ended;
    await sleep(20);
    const last = told.findIndex((word) => word === "closed" || word === "dead");
    assert.equal(last, told.length - 1, `${leave} in ${type}: ${told}`);
    assert.ok(told.includes(type), `${leave} in ${type}: ${told}`);
  };
  const types = ["connected", "suspect", "recovered", "beat", "message", "finished", "closed"];
  await Promise.all(
    types.flatMap((type) => [leaves("close", type), leaves("abort", type)]),
  );
});

test("an event that is caused by a listener is told behind its event", async () => {
  const { server, socket } = await connect();
  const order = [];
  server.addEventListener("message", () => server.abort());
  server.addEventListener("message", () => order.push("message"));
  server.addEventListener("closed", () => order.push("closed"));
  socket.says({ type: "data", body: Uint8Array.of(1) });
  await server.ended;
  assert.deepEqual(order, ["message", "closed"]);
});

test("long times take one timer", async (t) => {
  const real = globalThis.setTimeout;
  const delays = [];
  globalThis.setTimeout = (act, delay, ...more) => {
    if (delay > 0) delays.push(delay);
    return real(act, delay, ...more);
  };
  t.after(() => (globalThis.setTimeout = real));
  t.mock.method(Math, "random", () => 0.99);
  const month = 30 * 86_400_000;
  const server = new Heartbeat(new FakeSocket(() => {}), { interval: month, timeout: month });
  await new Promise((resolve) => real(resolve, 100));
  assert.ok(delays.length <= 2, `timers of ${delays}`);
  assert.ok(delays.every((delay) => delay < 2 ** 31), `${delays}`);
  server.abort();
});

test("a socket that is closed already is told at once", async () => {
  for (const readyState of [2, 3]) {
    const server = new Heartbeat(new FakeSocket(answers, readyState));
    const told = listenTo(server);
    const began = performance.now();
    const end = await server.ended;
    assert.deepEqual([end.type, end.cause, told.join()], ["dead", "unreachable", "dead"]);
    assert.ok(performance.now() - began < 100);
  }
});

test("options that make no sense are refused", () => {
  const refused = [
    { maxFrame: NaN },
    { maxFrame: 0 },
    { maxFrame: 1.5 },
    { maxFrame: 2 ** 32 - 1 },
    { maxMissed: 256 },
    { interval: -1 },
    { interval: Infinity },
    { timeout: "1000" + "x" },
    { timeout: NaN },
    { linger: 0 },
    { minInterval: 14_000 },
    { interval: 10_000, timeout: 100, minInterval: 1000 },
    { detectWithin: 4000, interval: 1000, timeout: 500 },
    { detectWithin: 4000, timeout: 2000 },
  ];
  for (const options of refused) {
    const make = () => new Heartbeat(new FakeSocket(() => {}), options);
    assert.throws(make, RangeError, JSON.stringify(options));
  }
  const misspelt = () => new Heartbeat(new FakeSocket(() => {}), { detectWithing: 4000 });
  assert.throws(misspelt, /no such option: detectWithing/);

  const times = [
    [{}, 14_000],
    [{ detectWithin: 4000 }, 4000],
    [{ detectWithin: 4000, timeout: 1000 }, 4000],
    [{ detectWithin: 4000, interval: 1000, timeout: 1000 }, 4000],
    [{ interval: 1000, timeout: 500, maxMissed: 2 }, 2000],
    [{ interval: 10_000, timeout: 100 }, 10_300],
  ];
  for (const [options, detectionTime] of times) {
    const server = new Heartbeat(new FakeSocket(() => {}), options);
    assert.ok(Math.abs(server.detectionTime - detectionTime) < 0.001, JSON.stringify(options));
    server.abort();
  }
});

test("only codes for leaving are taken", async () => {
  const { server } = await connect();
  for (const code of [2, 8, 63, 128, 64.5, NaN, "1"]) {
    assert.throws(() => server.close(code), RangeError);
    assert.throws(() => server.abort(code), RangeError);
  }
  assert.equal(await server.close(127, "x".repeat(1000)), true);
  const { type, reason, code } = await server.ended;
  assert.deepEqual([type, reason, code], ["closed", "local", 127]);
});

test("the end has what the close event said", async () => {
  for (const [before, expected] of [
    [() => {}, { type: "dead", cause: "eof", code: null, detail: "" }],
    [
      (socket) => socket.arrives(Uint8Array.of(4, 1, 2, 0x68, 0x69)),
      { type: "closed", reason: "peer", code: 1, detail: "hi", close: null },
    ],
    [
      (socket) => socket.arrives(Uint8Array.of(4, 7, 0)),
      { type: "dead", cause: "given up", code: 7, detail: "", close: null },
    ],
  ]) {
    const { server, socket } = await connect();
    before(socket);
    socket.ends(1012, "restarting", true);
    const close = { code: 1012, reason: "restarting", wasClean: true };
    const { silentFor, missed, error, ...end } = await server.ended;
    assert.deepEqual(end, { close, ...expected });
  }
});

/** Nothing else runs, and nothing that arrives is told. */
const block = (time) => {
  for (const end = performance.now() + time; performance.now() < end; );
};

test("whoever is blocked while a socket opens doesn't blame the server", async () => {
  const options = { interval: 100, timeout: 200, maxMissed: 3 };
  // Hardly longer than the bound, which is 700 ms, and much longer; and how much later the
  // socket has its turn. The timer is due before that.
  for (const [time, later] of [[725, 20], [950, 120], [2000, 120]]) {
    const socket = new FakeSocket(answers, 0);
    const server = new Heartbeat(socket, options);
    const told = listenTo(server);
    block(time);
    setTimeout(() => socket.opens(), later);
    await until(() => told.includes("beat") || told.includes("dead"));
    assert.ok(!told.includes("dead"), `${time}: ${told}`);
    server.abort();
  }
});

test("a late verdict waits for what has arrived", async () => {
  const deaf = (socket, frame) => frame.type === "hello" && socket.says(HELLO);
  const { server, socket, told } = await connect(deaf, { ...QUICK, timeout: 200 });
  // For the last step of the round, until shortly after its end.
  await until(() => server.status.missed === 2);
  block(240);
  setTimeout(() => socket.arrives(Uint8Array.of(5)), 10);
  await sleep(100);
  assert.ok(told.includes("recovered") && !told.includes("dead"), `${told}`);
  server.abort();
});

test("silence is death in time, and a hang of the server's too", async () => {
  for (const readyState of [0, 1]) {
    const began = performance.now();
    const server = new Heartbeat(new FakeSocket(() => {}, readyState), QUICK);
    const { cause } = await server.ended;
    const took = performance.now() - began;
    assert.equal(cause, "silent");
    assert.ok(took > 250 && took < 2000, `${took}`);
  }
});

test("whoever asks now knows within the rounds, without the interval", async () => {
  let living = true;
  const other = (socket, frame) => living && answers(socket, frame);
  const { server, told } = await connect(other, { interval: 60_000, timeout: 50, minInterval: 100 });
  await sleep(120);
  assert.equal(server.probe(), true);
  await until(() => told.includes("beat"));
  living = false;
  const began = performance.now();
  assert.equal(server.probe(), true);
  const { cause } = await server.ended;
  const took = performance.now() - began;
  assert.equal(cause, "silent");
  // Not before the server's min interval has passed since the last ping.
  assert.ok(took > 140 && took < 5000, `${took}`);
  assert.equal(server.probe(), false);
});

test("a signal ends it", async () => {
  const control = new AbortController();
  const { server, socket } = await connect(answers, { ...PATIENT, signal: control.signal });
  control.abort();
  const { type, reason } = await server.ended;
  assert.deepEqual([type, reason], ["closed", "unconfirmed"]);
  assert.equal(socket.frames().at(-1).type, "goodbye");
  assert.equal(socket.readyState, 2);

  const late = new FakeSocket(answers, 0);
  const told = listenTo(new Heartbeat(late, { signal: control.signal }));
  await until(() => told.length > 0);
  assert.deepEqual([told.join(), late.readyState], ["closed", 2]);
});

test("a long message goes in parts, and beats go between them", async () => {
  const { server, socket } = await connect(answers, { ...QUICK, timeout: 200 });
  const write = socket.send.bind(socket);
  // 20 kB/ms are taken.
  socket.send = (bytes) => {
    socket.bufferedAmount += bytes.length;
    write(bytes);
  };
  const draining = setInterval(() => {
    socket.bufferedAmount = Math.max(0, socket.bufferedAmount - 100_000);
  }, 5);
  const length = 12_000_000;
  assert.equal(server.send(new Uint8Array(length)), true);
  assert.ok(server.buffered >= length);
  await until(() => server.buffered === 0, 40_000);
  clearInterval(draining);
  const frames = socket.frames();
  const parts = frames.filter(({ type }) => type === "part").length;
  assert.equal(parts, Math.ceil(length / 65_536));
  const beats = frames.findIndex(({ type }) => type === "ping");
  assert.ok(beats > 0 && beats < frames.length - 1, `${beats} of ${frames.length}`);
  assert.equal(await server.close(), true);
});

test("a message that arrives in parts is life, and is answered by signs of life", async () => {
  // Its answers wait behind the message.
  const greets = (it, { type }) => type === "hello" && it.says({ ...HELLO, interval: 1e5 });
  const { socket, server, told } = await connect(greets, QUICK);
  const parts = 40;
  const began = performance.now();
  for (let number = 0; number < parts; number += 1) {
    const length = number === 0 ? parts * 65_536 : undefined;
    socket.says({ type: "part", length, body: new Uint8Array(65_536) });
    await sleep(40);
  }
  assert.ok(performance.now() - began > 3 * server.detectionTime);
  await until(() => told.includes("message"));
  assert.ok(!told.includes("dead"), `${told}`);
  const signs = socket.frames().filter(({ type }) => type === "alive").length;
  assert.ok(signs >= 5, `${signs} signs of life`);
  server.abort();
});

test("a question is no answer", async () => {
  const socket = new FakeSocket((it, { type }) => type === "hello" && it.says(HELLO));
  const server = new Heartbeat(socket, QUICK);
  const asking = setInterval(() => socket.says({ type: "ping", nonce: new Uint8Array(8) }), 20);
  const { type, cause } = await server.ended;
  clearInterval(asking);
  assert.deepEqual([type, cause], ["dead", "silent"]);
});

test("whoever finishes and leaves at once waits for the answer all the same", async () => {
  const silent = (socket, frame) => frame.type !== "goodbye" && answers(socket, frame);
  for (const [other, confirmed] of [[answers, true], [silent, false]]) {
    const { socket, server } = await connect(other, { ...PATIENT, linger: 100 });
    socket.bufferedAmount = 1e6;
    assert.equal(server.finish(), true);
    const left = server.close();
    socket.bufferedAmount = 0;
    assert.equal(await left, confirmed);
  }
});

test("a detail is UTF-8, and is kept as it is", () => {
  const goodbye = (...detail) => Uint8Array.of(4, 0, detail.length, ...detail);
  for (const detail of ["", "é", "\ufffd", "\ufeffbye"]) {
    assert.equal(decode(goodbye(...new TextEncoder().encode(detail))).detail, detail);
  }
  for (const detail of [[0xff], [0xc3], [0xed, 0xa0, 0x80], new Array(124).fill(0x20)]) {
    assert.throws(() => decode(goodbye(...detail)), { kind: "Malformed" });
  }
});
