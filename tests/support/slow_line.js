
// The page of tests/browsers/slow_line.rs, behind heartbeat.js. On each line, an address,
// it sends one message, takes one, and leaves. It says what came of it.
const LENGTH = 4 << 20;
const DETECT_WITHIN = 4000;

const filler = (nth) =>
  new Uint8Array(LENGTH).map((_, at) => nth * 31 + at * 7 + Math.floor(at / 251));
const [ours, theirs] = [filler(0), filler(1)];

const exchangeOn = (address) =>
  new Promise((resolve) => {
    const socket = new WebSocket(`ws://${address}/`);
    const server = new Heartbeat(socket, { detectWithin: DETECT_WITHIN });
    let [same, suspected] = [false, 0];
    const listen = (type, act) => server.addEventListener(type, ({ detail }) => act(detail));
    listen("connected", () => server.send(ours));
    listen("suspect", () => (suspected += 1));
    listen("message", (message) => {
      same = message.length === LENGTH && message.every((byte, at) => byte === theirs[at]);
      // Behind our own message, which may not be sent yet.
      server.close();
    });
    const end = (word) => resolve({ ended: word, same, suspected });
    listen("dead", ({ cause }) => end(`dead ${cause}`));
    listen("closed", ({ reason }) => end(`closed ${reason}`));
  });

globalThis.exchange = (addresses) => Promise.all(addresses.map(exchangeOn));
