// One connection after the other.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { Heartbeat, reconnecting } from "../heartbeat.js";
import { FakeSocket, answers, listenTo, sleep, until } from "./fake.js";

const OPTIONS = { interval: 200, timeout: 60, maxMissed: 3, linger: 300 };

/** Servers that a test starts and stops, and all sockets to them. */
const world = ({ up = true, timings = OPTIONS, ...options } = {}) => {
  const sockets = [];
  const here = {
    up,
    sockets,
    attempts: [],
    living: () => sockets.filter(({ readyState }) => readyState < 2),
    most: 0,
    open: () => {
      const socket = new FakeSocket(answers, 0);
      sockets.push(socket);
      here.attempts.push(performance.now());
      here.most = Math.max(here.most, here.living().length);
      setTimeout(() => {
        if (socket.readyState > 0) return;
        if (here.up) socket.opens();
        else socket.ends();
      }, 5);
      return new Heartbeat(socket, timings);
    },
  };
  here.server = reconnecting(here.open, { first: 20, longest: 80, ...options });
  here.told = listenTo(here.server);
  return here;
};

/** What a browser's window is. */
const withPage = (t) => {
  const page = new EventTarget();
  const listeners = new Set();
  globalThis.addEventListener = (type, act) => {
    listeners.add(act);
    page.addEventListener(type, act);
  };
  globalThis.removeEventListener = (type, act) => {
    listeners.delete(act);
    page.removeEventListener(type, act);
  };
  globalThis.document = new EventTarget();
  t.after(() => {
    for (const name of ["addEventListener", "removeEventListener", "document"]) {
      delete globalThis[name];
    }
  });
  return {
    listeners,
    happens: (type) => page.dispatchEvent(new Event(type)),
    document: (type) => globalThis.document.dispatchEvent(new Event(type)),
  };
};

test("it comes back, and has one socket at a time", async () => {
  const here = world();
  const { server, sockets, told } = here;
  const greeted = () => told.filter((word) => word === "connected").length;
  for (let round = 0; round < 5; round += 1) {
    await until(() => greeted() === round + 1);
    sockets.at(-1).ends();
  }
  await until(() => greeted() === 6);
  assert.equal(sockets.length, 6);
  assert.equal(here.most, 1);
  assert.equal(told.filter((word) => word === "dead").length, 5);
  assert.equal(await server.close(), true);
  assert.equal((await server.ended).reason, "local");
  assert.equal(server.state, "ended");
});

test("names that change and pages that come and go in an outage leave one socket", async (t) => {
  const page = withPage(t);
  const here = world({ up: false, longest: 40 });
  const { server } = here;
  for (let round = 0; round < 4; round += 1) {
    server.reopen();
    await sleep(15);
  }
  for (let round = 0; round < 3; round += 1) {
    page.happens("pagehide");
    assert.equal(server.state, "away");
    page.happens("pageshow");
    page.happens("pageshow");
    await sleep(15);
  }
  here.up = true;
  await until(() => server.state === "alive");
  await sleep(150);
  assert.equal(here.living().length, 1);
  assert.equal(here.most, 1);

  // The same while it is connected.
  for (let round = 0; round < 4; round += 1) server.reopen();
  await until(() => server.state === "alive" && here.living().length === 1);
  for (const [away, back] of [["pagehide", "pageshow"], ["freeze", "resume"]]) {
    const happens = away === "freeze" ? page.document : page.happens;
    happens(away);
    await sleep(60);
    assert.equal(here.living().length, 0);
    assert.equal(server.send(new Uint8Array(1)), false);
    happens(back);
    await until(() => server.state === "alive");
  }
  await sleep(100);
  assert.equal(here.living().length, 1);
  assert.equal(here.most, 1);
  server.close();
  await server.ended;
  page.happens("pageshow");
  await sleep(20);
  assert.equal(here.living().length, 0);
});

/** The window that a wait was drawn from, by a dice that has shown `part`. */
const drawn = ({ retryAt }, before, part) => {
  const least = (retryAt - performance.now()) / part;
  const most = (retryAt - before) / part;
  return [8, 16, 20, 32, 40, 50, 100, 800, 5000].find((time) => time >= least && time <= most);
};

test("waits are drawn from a window that doubles", async (t) => {
  const windows = [];
  const real = globalThis.setTimeout;
  t.mock.method(Math, "random", () => 0.5);
  const sockets = [];
  const server = reconnecting(
    () => {
      const socket = new FakeSocket(answers, 0);
      sockets.push(socket);
      return new Heartbeat(socket, OPTIONS);
    },
    { first: 8, longest: 50 },
  );
  for (let round = 0; round < 6; round += 1) {
    await until(() => sockets.length > round);
    const before = performance.now();
    sockets[round].ends();
    windows.push(drawn(server, before, 0.5));
  }
  assert.deepEqual(windows, [8, 16, 32, 50, 50, 50]);
  assert.equal(globalThis.setTimeout, real);
  server.close();
  assert.equal(server.retryAt, null);
});

/** What ends a connection, and whether another attempt follows: within which window. */
const ENDS = [
  ["cut off", (socket) => socket.ends(1006), 800],
  ["a proxy's idle timeout", (socket) => socket.ends(1001), 800],
  ["an error of the server's", (socket) => socket.ends(1011), 800],
  ["service restart", (socket) => socket.ends(1012), 100],
  ["try again later", (socket) => socket.ends(1013), 5000],
  ["the application's close code", (socket) => socket.ends(4000), 800],
  ["a protocol error", (socket) => socket.ends(1002), null],
  ["unsupported data", (socket) => socket.ends(1003), null],
  ["a policy", (socket) => socket.ends(1008), null],
  ["too large", (socket) => socket.ends(1009), null],
  ["goodbye", (socket) => socket.arrives(Uint8Array.of(4, 0, 0)), 800],
  ["goodbye, restarting", (socket) => socket.arrives(Uint8Array.of(4, 1, 0)), 100],
  ["goodbye of the application", (socket) => socket.arrives(Uint8Array.of(4, 64, 0)), 800],
  ["given up as silent", (socket) => socket.arrives(Uint8Array.of(4, 2, 0)), 800],
  ["given up for our protocol", (socket) => socket.arrives(Uint8Array.of(4, 4, 0)), null],
  ["refused", (socket) => socket.arrives(Uint8Array.of(4, 6, 0)), null],
  ["another protocol", (socket) => socket.arrives(Uint8Array.of(0x20)), null],
];

test("how it ended decides whether another attempt follows, and how soon", async (t) => {
  t.mock.method(Math, "random", () => 0.999);
  for (const [what, ends, window] of ENDS) {
    const sockets = [];
    const open = () => {
      const socket = new FakeSocket(answers, 0);
      sockets.push(socket);
      setTimeout(() => (sockets.length > 3 ? socket.opens() : socket.ends()), 1);
      return new Heartbeat(socket, OPTIONS);
    };
    // Three attempts fail before, so that a fresh start can be told from none.
    const retry = ({ cause }) => (cause === "unreachable" ? true : undefined);
    const server = reconnecting(open, { first: 100, longest: 5000, retry });
    while (sockets.length < 4) {
      await until(() => server.retryAt !== null);
      server.reopen();
    }
    await until(() => server.current?.status.peer);
    const before = performance.now();
    ends(sockets[3]);
    if (window === null) {
      await server.ended;
      assert.equal(server.state, "ended", what);
    } else {
      assert.equal(drawn(server, before, 0.999), window, what);
    }
    server.close();
  }
});

test("the application has the last word on another attempt", async () => {
  const asked = [];
  const answersTo = [50, true, false];
  const retry = (end) => {
    asked.push(end.cause);
    return answersTo[asked.length - 1];
  };
  const here = world({ up: false, first: 1, longest: 1, retry });
  const last = await here.server.ended;
  assert.equal(last.cause, "unreachable");
  assert.deepEqual(asked, ["unreachable", "unreachable", "unreachable"]);
  assert.ok(here.attempts[1] - here.attempts[0] >= 50);
  assert.equal(here.sockets.length, 3);
});

test("whoever is asked about another attempt may close instead, or fail", async () => {
  for (const answer of [true, undefined, 1]) {
    const here = world({ up: false, retry: () => (here.server.close(), answer) });
    await here.server.ended;
    await sleep(60);
    assert.deepEqual([here.sockets.length, here.server.state], [1, "ended"]);
  }
});

test("a connection that lasted makes the next wait a first one", async (t) => {
  t.mock.method(Math, "random", () => 0.999);
  for (const [lasting, window] of [[50, 20], [60_000, 40]]) {
    const here = world({ up: false, longest: 1000, lasting });
    const { server, sockets } = here;
    await until(() => server.retryAt !== null);
    here.up = true;
    const counted = sockets.length;
    await until(() => server.state === "alive");
    assert.equal(counted, 1);
    await until(() => server.current?.status.peer);
    await sleep(80);
    const before = performance.now();
    sockets.at(-1).ends();
    assert.equal(drawn(server, before, 0.999), window, lasting);
    server.close();
  }
});

test("a network that is back ends the wait", async (t) => {
  const page = withPage(t);
  const timings = { interval: 60_000, timeout: 100 };
  const here = world({ up: false, first: 20, longest: 60_000, timings });
  const { server, sockets } = here;
  t.mock.method(Math, "random", () => 0.999);
  while (sockets.length < 8) {
    await until(() => server.retryAt !== null);
    server.reopen();
  }
  await until(() => server.retryAt !== null);
  assert.ok(server.retryAt - performance.now() > 1000);
  here.up = true;
  page.happens("online");
  assert.ok(server.retryAt - performance.now() <= 20);
  await until(() => server.state === "alive");
  // While there is a connection it is asked.
  await until(() => server.current.status.peer);
  assert.ok(!here.told.includes("beat"));
  page.happens("online");
  await until(() => here.told.includes("beat"));
  server.close();
});

test("an attempt may take its time, fail, and be given up", async (t) => {
  const page = withPage(t);
  const opened = [];
  let fails = true;
  const open = async (signal) => {
    await sleep(20);
    if (fails) throw new Error("no token");
    const socket = new FakeSocket(answers, 0);
    opened.push({ socket, aborted: signal.aborted });
    setTimeout(() => socket.readyState === 0 && socket.opens(), 1);
    return new Heartbeat(socket, OPTIONS);
  };
  const server = reconnecting(open, { first: 5, longest: 5 });
  const [event] = await new Promise((resolve) => {
    server.addEventListener("dead", (...all) => resolve(all), { once: true });
  });
  assert.equal(event.detail.error.message, "no token");
  fails = false;
  await until(() => server.state === "opening");
  page.happens("pagehide");
  await sleep(60);
  // It was too late to keep it from opening one, and that is closed at once.
  assert.ok(opened.every(({ socket, aborted }) => aborted && socket.readyState === 2));
  page.happens("pageshow");
  await until(() => server.state === "alive");
  assert.equal(opened.filter(({ socket }) => socket.readyState < 2).length, 1);

  const control = new AbortController();
  const other = reconnecting(open, { signal: control.signal });
  control.abort();
  assert.equal(await other.ended, null);
  await sleep(60);
  assert.equal(opened.filter(({ socket }) => socket.readyState < 2).length, 1);
  assert.equal(await server.close(), true);
});

test("whoever closes in a listener stops it", async () => {
  for (const type of ["connected", "closed", "dead"]) {
    const { server, sockets } = world();
    server.addEventListener(type, () => server.close());
    await until(() => server.state === "alive" || server.state === "ended" || type === "connected");
    if (type === "dead") sockets[0].ends();
    if (type === "closed") sockets[0].arrives(Uint8Array.of(4, 0, 0));
    await server.ended;
    await sleep(60);
    assert.equal(sockets.length, 1, type);
  }
});

test("whoever has ended listens to the page no more", async (t) => {
  const page = withPage(t);
  const { server, told } = world();
  await until(() => told.includes("connected"));
  assert.ok(page.listeners.size > 0);
  await server.close();
  assert.equal(page.listeners.size, 0);
});

test("options that make no sense are refused", () => {
  const open = () => assert.fail("it is opened");
  for (const options of [{ first: 0 }, { longest: NaN }, { lasting: -1 }]) {
    assert.throws(() => reconnecting(open, options), RangeError);
  }
  assert.throws(() => reconnecting(open, { frist: 1 }), /no such option: frist/);
});

test("10,000 reconnects leave no timer and no memory", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  let [count, socket] = [0, null];
  const control = new AbortController();
  const open = () => {
    count += 1;
    socket = new FakeSocket(() => {});
    // As an application does that ends all at once.
    return new Heartbeat(socket, { ...OPTIONS, signal: control.signal });
  };
  const before = timers();
  const server = reconnecting(open, { first: 1e-6, longest: 1e-6, signal: control.signal });
  const reconnect = async (rounds) => {
    for (let round = 0; round < rounds; round += 1) {
      await Promise.resolve();
      await Promise.resolve();
      socket.ends();
      // Without the millisecond that a timer takes.
      server.reopen();
    }
    await sleep(10);
    collect();
    return process.memoryUsage().heapUsed;
  };
  const warm = await reconnect(500);
  const after = await reconnect(10_000);
  assert.ok(count > 10_000, `${count}`);
  assert.ok(after - warm < 500_000, `${after - warm} bytes`);
  assert.ok(timers() - before <= 2, `${timers() - before} timers`);
  control.abort();
  await server.ended;
  assert.equal(timers(), before);
});
