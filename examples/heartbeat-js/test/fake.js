// A socket whose other end is a function, and a clock that tests turn.

import { decode, encode } from "../heartbeat.js";

export const HELLO = {
  type: "hello",
  interval: 5e6,
  detectionTime: 14e6,
  minInterval: 1e5,
  maxMissed: 3,
  maxFrame: 64 << 20,
  instance: new Uint8Array(8),
};

/** What a living server does. */
export const answers = (socket, frame) => {
  if (frame.type === "hello") socket.says(HELLO);
  if (frame.type === "ping") socket.says({ type: "pong", nonce: frame.nonce });
  if (frame.type === "goodbye" && frame.code !== 8) {
    socket.says({ type: "goodbye", code: 8, detail: "" });
  }
};

export class FakeSocket extends EventTarget {
  readyState = 1;
  bufferedAmount = 0;
  binaryType = "blob";
  /** Bytes of each frame that was sent. */
  sent = [];
  #other;

  constructor(other = answers, readyState = 1) {
    super();
    this.#other = other;
    this.readyState = readyState;
  }

  send(bytes) {
    if (this.readyState !== 1) throw new Error("it isn't open");
    this.sent.push(bytes);
    // The application's are no parts of anything in these tests.
    if (bytes[0] !== 7) this.#other(this, decode(bytes, { maxFrame: 64 << 20 }));
  }

  /** Soon, as a network does. */
  says(frame) {
    setTimeout(() => this.arrives(encode(frame)));
  }

  arrives({ buffer }) {
    if (this.readyState > 1) return;
    this.dispatchEvent(Object.assign(new Event("message"), { data: buffer }));
  }

  opens() {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  close() {
    if (this.readyState < 2) this.readyState = 2;
  }

  /** The other end closes, or it is cut. */
  ends(code = 1006, reason = "", wasClean = false) {
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason, wasClean }));
  }

  frames() {
    return this.sent.map((bytes) => (bytes[0] === 7 ? { type: "part" } : decode(bytes)));
  }
}

export const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** Waits until it is so. */
export const until = async (isSo, within = 5000) => {
  for (const end = performance.now() + within; !isSo(); await sleep(2)) {
    if (performance.now() > end) throw new Error(`not within ${within} ms: ${isSo}`);
  }
};

const TYPES = ["connected", "message", "beat", "suspect", "recovered", "stall", "finished"];

/** The types of all that is told, as it is told. */
export const listenTo = (target) => {
  const told = [];
  for (const type of [...TYPES, "closed", "dead"]) {
    target.addEventListener(type, (event) => told.push(event.type));
  }
  return told;
};
