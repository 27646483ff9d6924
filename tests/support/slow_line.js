
// The page of tests/browsers/slow_line.rs, behind heartbeat.js. On each line, an address,
// it sends one message and takes one. It says what has come, and what disturbed it.
const LENGTH = 4 << 20;
const DETECT_WITHIN = 4000;

const filler = (nth) =>
  new Uint8Array(LENGTH).map((_, at) => nth * 31 + at * 7 + Math.floor(at / 251));
const [ours, theirs] = [filler(0), filler(1)];

const exchangeOn = (address) =>
  new Promise((resolve) => {
    const socket = new WebSocket(`ws://${address}/`);
    const server = new Heartbeat(socket, { detectWithin: DETECT_WITHIN });
    const disturbed = [];
    let same = false;
    const listen = (type, act) => server.addEventListener(type, ({ detail }) => act(detail));
    listen("connected", () => server.send(ours));
    listen("suspect", ({ missed }) => disturbed.push(`suspect ${missed}`));
    listen("dead", ({ cause }) => disturbed.push(`dead ${cause}`));
    listen("message", async (message) => {
      same = message.length === LENGTH && message.every((byte, at) => byte === theirs[at]);
      // Behind our own message, which may not be sent yet.
      if (!(await server.close())) disturbed.push("unconfirmed");
    });
    const end = () => setTimeout(() => resolve({ disturbed, same }));
    listen("dead", end);
    listen("closed", end);
  });

globalThis.exchange = (addresses) => Promise.all(addresses.map(exchangeOn));
