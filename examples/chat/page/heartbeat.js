/**
 * A heartbeat in a WebSocket, for web pages. One file, no dependencies: copy it.
 *
 * A page can't see WebSocket's own pings, and a socket whose server is dead looks
 * open for ever. So both ends send control frames of this project's protocol,
 * each in a binary message of its own: one byte says what it is, and the body
 * follows, without a length in front. The specification is docs/protocol.md,
 * "Frames in WebSocket messages"; its test vectors are read by this module's
 * tests.
 *
 *     import { Heartbeat } from "./heartbeat.js";
 *
 *     const socket = new WebSocket("wss://example.org/socket");
 *     const server = new Heartbeat(socket, { detectWithin: 4000 });
 *     server.addEventListener("connected", () => server.send(bytes));
 *     server.addEventListener("message", ({ detail }) => show(detail)); // Uint8Array
 *     server.addEventListener("suspect", ({ detail }) => warn(detail.silentFor));
 *     server.addEventListener("recovered", () => warn(null));
 *     server.addEventListener("dead", ({ detail }) => connectAgain(detail.cause));
 *     server.addEventListener("closed", () => connectAgain("closed"));
 *     addEventListener("pagehide", () => server.close());
 *
 * The last event is "dead" or "closed", exactly one of them, once. "dead" comes
 * `detectWithin` after the last sign of life at the latest, plus what the page's
 * own timers are late by: browsers let those of a hidden page run once a second,
 * or once a minute.
 *
 * Times are in milliseconds, except in frames, where they are microseconds as on
 * the wire. What isn't in here: the limit for floods of pings (a page trusts the
 * server that it came from), and suspicion before the first missed beat.
 */

/** By so much of it an interval may be shortened, at random. */
const JITTER = 0.25;

/** Longest control frame that is accepted, in bytes, its tag included. */
const LONGEST_CONTROL = 256;

const TAGS = ["data", "hello", "ping", "pong", "goodbye"];
const MAGIC = [0x48, 0x42, 0x54, 0x00];
const VERSION = 1;
const LONGEST_TIME = 365 * 86_400 * 1_000_000; // in microseconds

export class Heartbeat extends EventTarget {
  #socket;
  #config;
  /** "opening", "idle", "round" or "ended". */
  #phase = "opening";
  #peer = null;
  #heardAt = performance.now();
  /** When the interval is over, or the next step of a round is due. */
  #due;
  #verdictAt;
  #timer = null;
  #missed = 0;
  /** Stalls of our own that were forgiven since the last sign of life. */
  #forgiven = 0;
  /** The last 2 · maxMissed pings: their nonces, and when they were sent. */
  #pings = [];
  #lastRtt = null;

  /**
   * Begins with a socket that is opening or open, and that nobody has sent
   * anything on. `options`:
   *
   * - `detectWithin`: how soon a death has to be known. Default 14,000. The
   *   others follow from it, or are given one by one:
   * - `interval`: the silence after which we ping;
   * - `timeout`: how long a ping may go unanswered;
   * - `maxMissed`: how many may, in a row. Default 3;
   * - `minInterval`: how often the server may ping. Default half of the
   *   interval, at most 1,000;
   * - `maxFrame`: the longest message to accept, in bytes. Default 8 MiB.
   */
  constructor(socket, options = {}) {
    super();
    this.#config = configure(options);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", this.#onOpen);
    socket.addEventListener("message", this.#onMessage);
    socket.addEventListener("close", this.#onClose);
    // A server that hangs accepts connections all the same: its kernel does.
    this.#verdictAt = this.#heardAt + this.detectionTime;
    this.#arm(this.#verdictAt);
    if (socket.readyState === WebSocket.OPEN) this.#onOpen();
  }

  /** The silence after which the server is dead, at the latest. */
  get detectionTime() {
    const { timeout, maxMissed } = this.#config;
    return this.#idleInterval() + maxMissed * timeout;
  }

  /** What is known right now. */
  get status() {
    const states = { opening: "opening", ended: "ended" };
    return {
      state: states[this.#phase] ?? (this.#missed > 0 ? "suspect" : "alive"),
      silentFor: performance.now() - this.#heardAt,
      missed: this.#missed,
      lastRtt: this.#lastRtt,
      peer: this.#peer,
    };
  }

  /** Sends a message, a Uint8Array. False if there is nobody to send it to. */
  send(body) {
    if (this.#phase === "opening" || this.#phase === "ended") return false;
    this.#transmit({ type: "data", body });
    return true;
  }

  /** Says goodbye behind everything that was sent, and closes. */
  close() {
    if (this.#phase === "ended") return;
    if (this.#phase !== "opening") this.#transmit({ type: "goodbye" });
    this.#end("closed", { reason: "local" });
  }

  // ---- what happens -------------------------------------------------------

  #onOpen = () => {
    const { interval, timeout, maxMissed, minInterval } = this.#config;
    this.#transmit({
      type: "hello",
      interval: micros(interval),
      detectionTime: micros(interval) + maxMissed * micros(timeout),
      minInterval: micros(minInterval),
      maxMissed,
    });
    this.#heardAt = performance.now();
    this.#phase = "idle";
    // Pages that were opened together don't ping together.
    this.#arm(this.#heardAt + Math.random() * interval);
  };

  #onMessage = ({ data }) => {
    if (!(data instanceof ArrayBuffer)) return; // text has no place here
    const bytes = new Uint8Array(data);
    let frame;
    try {
      frame = decode(bytes, {
        greeted: this.#peer !== null,
        maxFrame: this.#config.maxFrame,
      });
    } catch (error) {
      this.#die("protocol", { error });
      return;
    }
    this.#heard();
    switch (frame.type) {
      case "data":
        this.#tell("message", frame.body);
        break;
      case "hello": {
        const first = this.#peer === null;
        this.#peer = frame;
        if (first) this.#tell("connected", { peer: frame });
        break;
      }
      case "ping":
        this.#transmit({ type: "pong", nonce: frame.nonce });
        break;
      case "pong":
        this.#answered(frame.nonce);
        break;
      case "goodbye":
        this.#end("closed", { reason: "peer" });
        break;
    }
  };

  #onClose = ({ code }) => {
    const cause = this.#phase === "opening" ? "unreachable" : "eof";
    this.#die(cause, { code });
  };

  /** A sign of life: everything is forgotten, and the interval begins. */
  #heard() {
    const now = performance.now();
    const silentFor = now - this.#heardAt;
    const suspected = this.#missed > 0;
    this.#heardAt = now;
    this.#phase = "idle";
    this.#missed = 0;
    this.#forgiven = 0;
    const shortened = this.#config.interval * (1 - JITTER * Math.random());
    this.#arm(now + Math.max(shortened, this.#peerMinInterval()));
    if (suspected) this.#tell("recovered", { silentFor });
  }

  #answered(nonce) {
    const index = this.#pings.findIndex((ping) => equal(ping.nonce, nonce));
    if (index < 0) return; // late, or nobody asked
    this.#lastRtt = performance.now() - this.#pings[index].sentAt;
    // Those before it are answered too.
    this.#pings.splice(0, index + 1);
    this.#tell("beat", { rtt: this.#lastRtt });
  }

  // ---- when to ping, and when to give up ----------------------------------

  #onTimer = () => {
    this.#timer = null;
    const now = performance.now();
    if (this.#phase === "ended") return;
    // Life has put it off: a message doesn't touch the timer.
    if (now < this.#due) return this.#arm(this.#due);
    const { timeout, maxMissed } = this.#config;

    const late = now - this.#due;
    if (late > timeout && this.#forgiven < maxMissed && this.#phase !== "opening") {
      return this.#excuse(now, late);
    }
    if (this.#phase === "idle") return this.#beginRound(this.#due);
    if (now >= this.#verdictAt) {
      const inRound = this.#phase === "round" && this.#hasLeft();
      if (inRound) this.#missed = Math.min(this.#missed + 1, maxMissed);
      return this.#die("silent");
    }
    if (!this.#hasLeft()) {
      // No missed beat, and no other ping behind it; the bound stands.
      return this.#arm(Math.min(now + timeout / 4, this.#verdictAt));
    }
    this.#missed += 1;
    if (this.#missed < maxMissed) {
      this.#ping();
      this.#arm(Math.min(now + timeout, this.#verdictAt));
    } else {
      // The first round of a connection may begin early; its end doesn't.
      this.#arm(this.#verdictAt);
    }
    const silentFor = now - this.#heardAt;
    this.#tell("suspect", { missed: this.#missed, silentFor });
  };

  /** We were asleep, and know nothing about the server: it is asked once. */
  #excuse(now, late) {
    const { timeout } = this.#config;
    this.#forgiven += 1;
    if (this.#phase === "idle") {
      this.#beginRound(now);
    } else {
      this.#ping();
      this.#verdictAt = Math.max(this.#verdictAt, now + timeout);
      this.#arm(Math.min(now + timeout, this.#verdictAt));
    }
    this.#tell("stall", { late });
  }

  /** From when it was due, not from when we got round to it. */
  #beginRound(due) {
    const { timeout, maxMissed } = this.#config;
    // The first interval may be shorter than others; the verdict isn't sooner.
    const shortest = this.#heardAt + this.#idleInterval() * (1 - JITTER);
    this.#phase = "round";
    this.#verdictAt = Math.max(due, shortest) + maxMissed * timeout;
    this.#ping();
    this.#arm(Math.min(performance.now() + timeout, this.#verdictAt));
  }

  #ping() {
    const nonce = crypto.getRandomValues(new Uint8Array(8));
    this.#pings.push({ nonce, sentAt: performance.now() });
    if (this.#pings.length > 2 * this.#config.maxMissed) this.#pings.shift();
    this.#transmit({ type: "ping", nonce });
  }

  /** Whether the browser has handed over all that was sent. */
  #hasLeft() {
    return this.#socket.bufferedAmount === 0;
  }

  /** In milliseconds, as everything but a frame. */
  #peerMinInterval() {
    return this.#peer === null ? 0 : this.#peer.minInterval / 1000;
  }

  #idleInterval() {
    return Math.max(this.#config.interval, this.#peerMinInterval());
  }

  /** One timer is enough. It is only moved forward when it fires. */
  #arm(due) {
    this.#due = due;
    if (this.#timer !== null && this.#timer.fires <= due) return;
    if (this.#timer !== null) clearTimeout(this.#timer.id);
    const delay = Math.max(0, due - performance.now());
    this.#timer = { id: setTimeout(this.#onTimer, Math.ceil(delay)), fires: due };
  }

  // ---- the end ------------------------------------------------------------

  #die(cause, more = {}) {
    const silentFor = performance.now() - this.#heardAt;
    this.#end("dead", { cause, silentFor, missed: this.#missed, ...more });
  }

  #end(type, detail) {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    if (this.#timer !== null) clearTimeout(this.#timer.id);
    this.#socket.removeEventListener("open", this.#onOpen);
    this.#socket.removeEventListener("message", this.#onMessage);
    this.#socket.removeEventListener("close", this.#onClose);
    // Nobody waits for how the browser gets on with it.
    this.#socket.close();
    this.#tell(type, detail);
  }

  #transmit(frame) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(encode(frame));
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * How somebody broke the protocol. `kind` is one of the names in
 * docs/protocol.md, "What ends a connection".
 */
export class ProtocolError extends Error {
  constructor(kind, detail = "") {
    super(detail === "" ? kind : `${kind} ${detail}`);
    this.name = "ProtocolError";
    this.kind = kind;
  }
}

/**
 * A frame as bytes, its tag first. Frames are
 *
 *     { type: "data", body }                   a Uint8Array
 *     { type: "hello", interval, detectionTime, minInterval, maxMissed }
 *     { type: "ping", nonce }                  a Uint8Array of 8
 *     { type: "pong", nonce }
 *     { type: "goodbye" }
 */
export function encode(frame) {
  const tag = TAGS.indexOf(frame.type);
  switch (frame.type) {
    case "data":
      return joined(tag, frame.body);
    case "hello": {
      const { interval, detectionTime, minInterval, maxMissed } = frame;
      const numbers = [interval, detectionTime, minInterval, maxMissed];
      return Uint8Array.from([tag, ...MAGIC, VERSION, ...numbers.flatMap(varint)]);
    }
    case "ping":
    case "pong":
      return joined(tag, frame.nonce);
    case "goodbye":
      return Uint8Array.of(tag);
    default:
      throw new TypeError(`no such frame: ${frame.type}`);
  }
}

/**
 * Reads one whole message, anything that a peer may send. Throws a
 * `ProtocolError`. While `greeted` is false, because the peer's Hello hasn't come
 * yet, nothing else is accepted.
 */
export function decode(bytes, { greeted = true, maxFrame = 8 << 20 } = {}) {
  if (bytes.length === 0) throw new ProtocolError("EmptyFrame");
  const [tag] = bytes;
  const limit = greeted ? Math.max(maxFrame + 1, LONGEST_CONTROL) : LONGEST_CONTROL;
  checkLength(bytes, limit);
  if (!greeted && tag !== 1) throw new ProtocolError("HelloExpected", named(tag));
  if (tag >= TAGS.length) throw new ProtocolError("UnknownTag", named(tag));
  checkLength(bytes, tag === 0 ? maxFrame + 1 : LONGEST_CONTROL);

  const type = TAGS[tag];
  const body = bytes.subarray(1);
  const malformed = () => new ProtocolError("Malformed", named(tag));
  switch (type) {
    case "data":
      return { type, body };
    case "hello":
      return { type, ...readHello(body, malformed) };
    case "goodbye":
      if (body.length !== 0) throw malformed();
      return { type };
    default:
      if (body.length !== 8) throw malformed();
      return { type, nonce: body };
  }
}

function readHello(body, malformed) {
  if (body.length < 5) throw malformed();
  if (MAGIC.some((byte, index) => body[index] !== byte)) throw new ProtocolError("WrongMagic");
  if (body[4] !== VERSION) throw new ProtocolError("WrongVersion", `version=${body[4]}`);

  let at = 5;
  const read = (bits) => {
    let value = 0n;
    for (let shift = 0n; shift < bits; shift += 7n) {
      if (at >= body.length) throw malformed();
      const byte = body[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (value >> bits !== 0n) throw malformed();
        return Number(value);
      }
    }
    throw malformed();
  };
  const interval = read(64n);
  const detectionTime = read(64n);
  const minInterval = read(64n);
  const maxMissed = read(32n);
  // Bytes behind the last field are a later version's.

  const possible =
    interval >= 1 &&
    interval <= LONGEST_TIME &&
    interval < detectionTime &&
    detectionTime <= LONGEST_TIME * (maxMissed + 1) &&
    minInterval >= 1 &&
    minInterval <= LONGEST_TIME &&
    maxMissed >= 1 &&
    maxMissed <= 255;
  if (!possible) throw new ProtocolError("ImpossibleHello");
  return { interval, detectionTime, minInterval, maxMissed };
}

/** Seven bits a byte, the least significant ones first. */
function varint(number) {
  const bytes = [];
  let rest = BigInt(number);
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return bytes;
}

function joined(tag, body) {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = tag;
  frame.set(body, 1);
  return frame;
}

function checkLength({ length }, max) {
  if (length > max) throw new ProtocolError("FrameTooLong", `length=${length} max=${max}`);
}

function named(tag) {
  return `tag=0x${tag.toString(16).padStart(2, "0")}`;
}

function equal(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

function micros(millis) {
  return Math.max(1, Math.round(millis * 1000));
}

/** Three misses, and interval to timeout as 5 to 3, unless somebody knows better. */
function configure(options) {
  const { detectWithin = 14_000, maxMissed = 3, maxFrame = 8 << 20 } = options;
  const { timeout = (detectWithin * 3) / 14 } = options;
  const { interval = detectWithin - maxMissed * timeout } = options;
  const { minInterval = Math.min(interval / 2, 1000) } = options;
  for (const [name, value] of Object.entries({ interval, timeout, minInterval })) {
    if (!(value > 0 && value <= LONGEST_TIME / 1000)) {
      throw new RangeError(`${name} is ${value}, and has to be a time above zero`);
    }
  }
  if (!(Number.isInteger(maxMissed) && maxMissed >= 1 && maxMissed <= 255)) {
    throw new RangeError(`maxMissed is ${maxMissed}, and has to be from 1 to 255`);
  }
  return { interval, timeout, maxMissed, minInterval, maxFrame };
}
