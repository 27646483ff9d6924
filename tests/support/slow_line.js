
// The page of tests/browsers/slow_line.rs, behind heartbeat.js. On each line, an address
// and a length, it sends a message of that length, takes one, and leaves. It says what came
// of it.
const ANSWER = 4 << 20;
const DETECT_WITHIN = 4000;

const filler = (nth, length) =>
  new Uint8Array(length).map((_, at) => nth * 31 + at * 7 + Math.floor(at / 251));
const theirs = filler(1, ANSWER);

const exchangeOn = ([address, ours]) =>
  new Promise((resolve) => {
    const socket = new WebSocket(`ws://${address}/`);
    const server = new Heartbeat(socket, { detectWithin: DETECT_WITHIN });
    let [same, suspected] = [false, 0];
    const listen = (type, act) => server.addEventListener(type, ({ detail }) => act(detail));
    listen("connected", () => server.send(ours));
    listen("suspect", () => (suspected += 1));
    listen("message", (message) => {
      same = message.length === ANSWER && message.every((byte, at) => byte === theirs[at]);
      // Behind our own message, which may not be sent yet.
      server.close();
    });
    const end = (word) => resolve({ ended: word, same, suspected });
    listen("dead", ({ cause }) => end(`dead ${cause}`));
    listen("closed", ({ reason }) => end(`closed ${reason}`));
  });

globalThis.exchange = (lines) => {
  // Before the first socket is open: it takes a while.
  const all = lines.map(([address, length]) => [address, filler(0, length)]);
  return Promise.all(all.map(exchangeOn));
};
