// The page of tests/browsers/heartbeat_js.rs. With `?ID` it is one of many.
import { Heartbeat, reconnecting } from "/heartbeat.js";

const url = `ws://${location.host}/socket`;
const connect = (options, id = "") => new Heartbeat(new WebSocket(url + id), options);

/** Whether each showing was one of a page that was put away. */
globalThis.shown = [];
addEventListener("pageshow", ({ persisted }) => persisted && shown.push(persisted));

/** Blocks while a socket opens; what it finds first. */
globalThis.blocked = (time) =>
  new Promise((resolve) => {
    const server = connect({ detectWithin: 1000 });
    const end = (type, word) =>
      server.addEventListener(type, ({ detail }) => {
        resolve(word(detail));
        server.close();
      });
    end("connected", () => "connected");
    end("dead", ({ cause }) => `dead ${cause}`);
    for (const until = performance.now() + time; performance.now() < until; );
  });

/** One connection after the other: the documented sample. */
globalThis.keep = () => {
  globalThis.server = reconnecting(() => connect({ detectWithin: 4000 }));
};

/** Two heartbeats, of which one is in a Worker; and how often a timer of ours runs. */
globalThis.watch = () => {
  globalThis.told = { page: {}, worker: {} };
  globalThis.ticks = 0;
  setInterval(() => (ticks += 1), 100);
  const server = connect({ detectWithin: 4000 });
  globalThis.uploading = server;
  globalThis.upload = (length) => server.send(new Uint8Array(length));
  server.addEventListener("connected", () => (told.page.connected = true));
  server.addEventListener("dead", ({ detail }) => (told.page.dead = detail.cause));
  const script = `
    import { Heartbeat } from "${location.origin}/heartbeat.js";
    const server = new Heartbeat(new WebSocket("${url}"), { detectWithin: 4000 });
    server.addEventListener("connected", () => postMessage({ connected: true }));
    server.addEventListener("dead", ({ detail }) => postMessage({ dead: detail.cause }));`;
  const source = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const worker = new Worker(source, { type: "module" });
  worker.addEventListener("message", ({ data }) => Object.assign(told.worker, data));
};

// ---- many pages -----------------------------------------------------------------

/** Opens that many. */
globalThis.open = (count) => {
  for (let id = 0; id < count; id += 1) {
    const frame = document.createElement("iframe");
    frame.src = `/?${id}`;
    document.body.append(frame);
  }
};

const pages = () => Array.from(frames).map((frame) => frame.page).filter(Boolean);

globalThis.alive = () =>
  pages().filter(({ server }) => server.current?.status.peer && server.state === "alive").length;

/** How long after its first end each has tried again. */
globalThis.firstAttempts = () => pages().map(({ ends, attempts }) => attempts[1] - ends[0]);

if (location.search !== "") {
  const [attempts, ends] = [[], []];
  const server = reconnecting(() => {
    attempts.push(performance.now());
    // Chromium delays a WebSocket by up to 5 s while others connect to the same host. An
    // attempt that ends before that may have reached the server all the same.
    return connect({ detectWithin: 20_000 }, location.search);
  });
  server.addEventListener("dead", () => ends.push(performance.now()));
  globalThis.page = { server, attempts, ends };
}
