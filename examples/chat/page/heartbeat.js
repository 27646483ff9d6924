/**
 * A heartbeat in a WebSocket, for web pages. One file, no dependencies: copy it.
 *
 * A page can't see WebSocket's own pings, and a socket whose server is dead looks
 * open for ever. So both ends send frames of this project's protocol, each in a
 * binary message of its own: one byte says what it is, and the body follows,
 * without a length in front. The specification is docs/protocol.md, "Frames in
 * WebSocket messages"; its test vectors are read by this module's tests.
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
 *     server.addEventListener("closed", ({ detail }) => connectAgain(detail.reason));
 *     addEventListener("pagehide", () => server.close());
 *     if (!(await server.close())) warn("the server may not have got everything");
 *
 * `finish` says that we send no more messages; "finished" that the server doesn't. The
 * last event is "dead" or "closed", exactly one of them, once.
 *
 * "closed" has a `reason`: "local" (we left, and the server has taken everything in),
 * "unconfirmed" (we left, and it didn't say so), "peer" (the server left; `code` and
 * `detail` say why), or "finished" (both sides had finished).
 *
 * "dead" has a `cause`: "silent", "given up" (the server gave us up; `code` and `detail`
 * say why), "protocol", "eof", or "unreachable". A `detail` of the server's is any text:
 * show it as text, and conclude nothing from it. "dead" comes `detectWithin` after the
 * last sign of life at the latest, plus what the page's own timers are late by: browsers
 * let those of a hidden page run once a second, or once a minute.
 *
 * Times are in milliseconds, except in frames, where they are microseconds as on
 * the wire. Long messages travel in parts, in both directions, so that beats don't
 * wait for the end of one. What isn't in here: the limit for floods of pings (a page
 * trusts the server that it came from), suspicion before the first missed beat, and
 * signs of life while the page's script doesn't run.
 */

/** By so much of it an interval may be shortened, at random. */
const JITTER = 0.25;

/** Longest control frame that is accepted, in bytes, its tag included. */
const LONGEST_CONTROL = 256;

/** Most bytes of a message in one frame. A longer message travels in parts. */
const PART = 65_536;

/** The longest varint of 32 bits, in bytes. */
const LONGEST_VARINT = 5;

/** The longest detail of a goodbye, in bytes. */
const LONGEST_DETAIL = 123;

/**
 * The next part waits while the browser says that it holds so many bytes. Chromium and
 * its kernel hold about 1.2 MB more that nobody counts: on a line of 500 kB/s an answer
 * of ours takes 2 to 3 seconds.
 */
const AHEAD = 65_536;

/** The longest time that a browser's timer takes. */
const LONGEST_WAIT = 2 ** 31 - 1;

/** The code of the goodbye that answers a goodbye. */
const RECEIVED = 8;

/** No sooner than this after the last one another Alive leaves. */
const SHORTEST_SIGN_INTERVAL = 20;

const TAGS = ["data", "hello", "ping", "pong", "goodbye", "alive", "fin", "part"];
const FIRST_RESERVED = 0x40;
const LAST_RESERVED = 0x7f;
const MAGIC = [0x48, 0x42, 0x54, 0x00];
const VERSION = 1;
const LONGEST_TIME = 365 * 86_400 * 1_000_000; // in microseconds

export class Heartbeat extends EventTarget {
  #socket;
  #config;
  /** "opening", "idle", "round" or "ended". */
  #phase = "opening";
  #instance = crypto.getRandomValues(new Uint8Array(8));
  #peer = null;
  /** The longest message that the server accepts, as far as we know. */
  #longest = null;
  /** The message that arrives in parts: its length, and what is there. */
  #arriving = null;
  /**
   * What waits to be sent, in order: frames of messages, and a Fin or goodbyes behind
   * them. `sent` is called for one that was handed over.
   */
  #queue = [];
  #pump = null;
  /** Whether we send no more messages: null, "queued", or "said". */
  #fin = null;
  #peerFinished = false;
  /** That we leave: whether it was said and confirmed, and who waits for that. */
  #leaving = null;
  /** That the server leaves while we do, and whether we answered. */
  #peerLeft = null;
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
  #pingAt = -Infinity;
  #aliveAt = -Infinity;

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
   * - `maxFrame`: the longest message to accept, in bytes. Default 8 MiB;
   * - `linger`: how long `close` waits for the server's answer. Default 30,000.
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
    const open = this.#missed > 0 ? "suspect" : "alive";
    return {
      state: states[this.#phase] ?? (this.#leaving !== null ? "closing" : open),
      silentFor: performance.now() - this.#heardAt,
      missed: this.#missed,
      lastRtt: this.#lastRtt,
      peer: this.#peer,
    };
  }

  /**
   * Sends a message, a Uint8Array. False if there is nobody to send it to, or after
   * `finish` or `close`. Throws a RangeError if it is longer than the server accepts.
   */
  send(body) {
    if (!this.#maySend()) return false;
    const longest = this.#longest ?? this.#config.maxFrame;
    if (body.length > longest) {
      throw new RangeError(`a message of ${body.length} bytes, at most ${longest} are accepted`);
    }
    this.#queue.push(...inFrames(body).map((frame) => ({ frame })));
    this.#sendOn();
    return true;
  }

  /**
   * Says, behind everything that was sent, that no more messages follow, and goes on
   * receiving. False if there is nobody to say it to, or it was said. When both sides
   * have finished the connection is closed.
   */
  finish() {
    if (!this.#maySend()) return false;
    this.#fin = "queued";
    const sent = () => {
      this.#fin = "said";
      this.#settle();
    };
    this.#queue.push({ frame: { type: "fin" }, sent });
    this.#sendOn();
    return true;
  }

  /**
   * Says goodbye behind everything that was sent, and closes when the server has taken
   * that in. `code` and `detail` say why: 0 is leaving, 1 restarting, 64 to 127 are the
   * application's. Resolves to whether the server said that it has taken everything in;
   * never rejects. In "pagehide" only what the browser has room for is sent.
   */
  close(code = 0, detail = "") {
    if (this.#leaving !== null) return this.#leaving.done;
    if (this.#phase === "ended") return Promise.resolve(false);
    const leaving = { code, detail, said: false, confirmed: false };
    leaving.done = new Promise((resolve) => (leaving.resolve = resolve));
    this.#leaving = leaving;
    if (this.#phase === "opening") {
      this.#end("closed", { reason: "local", code, detail });
      return leaving.done;
    }
    const isOver = () => this.#end("closed", this.#outcome() ?? this.#reason("unconfirmed"));
    leaving.timer = setTimeout(isOver, Math.min(this.#config.linger, LONGEST_WAIT));
    const sent = () => (leaving.said = true);
    this.#queue.push({ frame: { type: "goodbye", code, detail }, sent });
    this.#sendOn();
    return leaving.done;
  }

  #maySend() {
    const isOpen = this.#phase === "idle" || this.#phase === "round";
    return isOpen && this.#fin === null && this.#leaving === null;
  }

  // ---- what happens -------------------------------------------------------

  #onOpen = () => {
    const { interval, timeout, maxMissed, minInterval, maxFrame } = this.#config;
    this.#transmit({
      type: "hello",
      interval: micros(interval),
      detectionTime: micros(interval) + maxMissed * micros(timeout),
      minInterval: micros(minInterval),
      maxMissed,
      maxFrame,
      instance: this.#instance,
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
        missing: this.#arriving?.missing ?? 0,
        finished: this.#peerFinished || this.#peerLeft !== null,
      });
      // We talk to ourselves.
      if (equal(frame.instance ?? [], this.#instance)) throw new ProtocolError("Loop");
    } catch (error) {
      this.#giveUp("protocol", 4, error.message, { error });
      return;
    }
    if (frame.type === "hello") this.#greet(frame);
    // A question is no answer: it doesn't show that the server hears us.
    if (frame.type !== "ping") this.#heard();
    switch (frame.type) {
      case "data":
        this.#tell("message", frame.body);
        break;
      case "part":
        this.#putTogether(frame);
        break;
      case "ping":
        this.#transmit({ type: "pong", nonce: frame.nonce });
        this.#askAlong();
        break;
      case "pong":
        this.#answered(frame.nonce);
        break;
      case "fin":
        if (!this.#peerFinished) {
          this.#peerFinished = true;
          this.#tell("finished", {});
          this.#settle();
        }
        break;
      case "goodbye":
        this.#part(frame);
        break;
    }
  };

  #greet(hello) {
    const first = this.#peer === null;
    this.#peer = hello;
    // It may have been counted on already: a later one takes nothing back.
    this.#longest = Math.max(this.#longest ?? 0, hello.maxFrame);
    if (first) this.#tell("connected", { peer: hello });
  }

  #putTogether({ length, body }) {
    if (length !== undefined) this.#arriving = { length, missing: length, parts: [] };
    const arriving = this.#arriving;
    arriving.parts.push(body);
    arriving.missing -= body.length;
    if (arriving.missing > 0) return this.#showLife();
    this.#arriving = null;
    const message = new Uint8Array(arriving.length);
    let at = 0;
    for (const part of arriving.parts) {
      message.set(part, at);
      at += part.length;
    }
    this.#tell("message", message);
  }

  /** The server is busy sending; its pings may wait behind that for too long. */
  #showLife() {
    const { interval } = this.#config;
    const { interval: asks, detectionTime } = this.#peer;
    const needed = Math.min(interval, asks / 1000, (detectionTime - asks) / 1000);
    const now = performance.now();
    if (now < this.#aliveAt + Math.max(needed, SHORTEST_SIGN_INTERVAL)) return;
    this.#aliveAt = now;
    this.#transmit({ type: "alive" });
  }

  #onClose = ({ code }) => {
    const cause = this.#phase === "opening" ? "unreachable" : "eof";
    this.#die(cause, { code });
  };

  /** A sign of life: everything is forgotten, and the interval begins. */
  #heard() {
    if (this.#phase === "ended") return;
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
      const silence = ((now - this.#heardAt) / 1000).toFixed(1);
      return this.#giveUp("silent", 2, `silent for ${silence} s`);
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

  /** The server asks: our own ping leaves along with the answer, if it was due soon. */
  #askAlong() {
    const now = performance.now();
    const since = now - this.#pingAt;
    const waits = this.#pings.length > 0 && since < this.#config.timeout;
    if (this.#phase === "idle" && !waits && since >= this.#spacing()) this.#beginRound(now);
  }

  /** From when it was due, not from when we got round to it. */
  #beginRound(due) {
    const { timeout, maxMissed } = this.#config;
    // The first interval may be shorter than others, and asking along comes early;
    // the verdict isn't sooner.
    const shortest = this.#heardAt + this.#idleInterval() * (1 - JITTER);
    const base = Math.max(due, shortest);
    const now = performance.now();
    this.#phase = "round";
    this.#verdictAt = base + maxMissed * timeout;
    const asked = this.#pingAt > this.#heardAt && now - this.#pingAt < this.#spacing();
    if (!asked) this.#ping();
    this.#arm(Math.min(Math.max(base, now) + timeout, this.#verdictAt));
  }

  #ping() {
    const nonce = crypto.getRandomValues(new Uint8Array(8));
    this.#pingAt = performance.now();
    this.#pings.push({ nonce, sentAt: this.#pingAt });
    if (this.#pings.length > 2 * this.#config.maxMissed) this.#pings.shift();
    this.#transmit({ type: "ping", nonce });
  }

  /** So far apart are pings that begin a round. */
  #spacing() {
    return Math.max(this.#idleInterval() * (1 - JITTER), this.#peerMinInterval());
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

  /** The server leaves, gave us up, or confirms that we leave. */
  #part({ code, detail }) {
    const isAnswer = code === RECEIVED;
    if (code >= 2 && code <= 7) {
      this.#die("given up", { code, detail });
    } else if (this.#leaving === null) {
      // Everything before it was told. What waits is given up.
      if (!isAnswer) this.#transmit({ type: "goodbye", code: RECEIVED, detail: "" });
      this.#end("closed", { reason: "peer", code, detail });
    } else if (isAnswer && this.#leaving.said) {
      this.#leaving.confirmed = true;
      this.#settle();
    } else if (this.#peerLeft === null) {
      const peerLeft = { code, detail, answered: isAnswer };
      this.#peerLeft = peerLeft;
      if (isAnswer) return;
      const sent = () => {
        peerLeft.answered = true;
        this.#settle();
      };
      // Behind our own.
      this.#queue.push({ frame: { type: "goodbye", code: RECEIVED, detail: "" }, sent });
      this.#sendOn();
    }
  }

  /** Closes if both sides have said all, and the server has it. */
  #settle() {
    const isAnswered = this.#peerLeft?.answered ?? true;
    if (this.#leaving?.confirmed && isAnswered) {
      this.#end("closed", this.#reason("local"));
    } else if (this.#fin === "said" && this.#peerFinished) {
      this.#end("closed", { reason: "finished", code: 0, detail: "" });
    }
  }

  /** What an end of the socket comes to: a goodbye that came is no death. */
  #outcome() {
    if (this.#leaving?.confirmed) return this.#reason("local");
    if (this.#peerLeft === null) return null;
    const { code, detail } = this.#peerLeft;
    return { reason: "peer", code, detail };
  }

  /** What we said when we left. */
  #reason(reason) {
    const { code, detail } = this.#leaving;
    return { reason, code, detail };
  }

  /** The server is told why; not a word of what else waits. */
  #giveUp(cause, code, detail, more = {}) {
    this.#transmit({ type: "goodbye", code, detail });
    this.#die(cause, more);
  }

  #die(cause, more = {}) {
    const outcome = this.#outcome();
    if (outcome !== null) return this.#end("closed", outcome);
    const silentFor = performance.now() - this.#heardAt;
    this.#end("dead", { cause, silentFor, missed: this.#missed, ...more });
  }

  #end(type, detail) {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    this.#queue = [];
    clearTimeout(this.#pump);
    clearTimeout(this.#leaving?.timer);
    if (this.#timer !== null) clearTimeout(this.#timer.id);
    this.#socket.removeEventListener("open", this.#onOpen);
    this.#socket.removeEventListener("message", this.#onMessage);
    this.#socket.removeEventListener("close", this.#onClose);
    // Nobody waits for how the browser gets on with it: it reads and throws away what
    // comes until the server's close frame, for a time of its own.
    this.#socket.close();
    this.#tell(type, detail);
    this.#leaving?.resolve(type === "closed" && detail.reason === "local");
  }

  /** As long as the browser holds little: so beats go between two parts. */
  #sendOn = () => {
    clearTimeout(this.#pump);
    while (this.#queue.length > 0 && this.#socket.bufferedAmount < AHEAD) {
      const { frame, sent } = this.#queue.shift();
      this.#transmit(frame);
      sent?.();
    }
    // Nobody tells when it has less.
    if (this.#queue.length > 0) this.#pump = setTimeout(this.#sendOn, 5);
  };

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
 *     { type: "hello", interval, detectionTime, minInterval, maxMissed, maxFrame,
 *       instance }                             a Uint8Array of 8
 *     { type: "ping", nonce }                  a Uint8Array of 8
 *     { type: "pong", nonce }
 *     { type: "goodbye", code, detail }        a number, and text
 *     { type: "alive" }
 *     { type: "fin" }
 *     { type: "part", length, body }           without a length but for the first
 *     { type: "reserved" }                     is never sent
 */
export function encode(frame) {
  const tag = TAGS.indexOf(frame.type);
  switch (frame.type) {
    case "data":
      return joined([tag], frame.body);
    case "hello": {
      const { interval, detectionTime, minInterval, maxMissed, maxFrame } = frame;
      const numbers = [interval, detectionTime, minInterval, maxMissed, maxFrame];
      const fields = [tag, ...MAGIC, VERSION, ...numbers.flatMap(varint)];
      return joined(fields, frame.instance);
    }
    case "ping":
    case "pong":
      return joined([tag], frame.nonce);
    case "goodbye": {
      const detail = cut(frame.detail);
      return joined([tag, frame.code, ...varint(detail.length)], detail);
    }
    case "alive":
    case "fin":
      return Uint8Array.of(tag);
    case "part": {
      const announced = frame.length === undefined ? [] : varint(frame.length);
      return joined([tag, ...announced], frame.body);
    }
    default:
      throw new TypeError(`no such frame: ${frame.type}`);
  }
}

/** The frames that a message travels in. */
function inFrames(body) {
  if (body.length <= PART) return [{ type: "data", body }];
  const frames = [];
  for (let at = 0; at < body.length; at += PART) {
    const part = { type: "part", body: body.subarray(at, at + PART) };
    if (at === 0) part.length = body.length;
    frames.push(part);
  }
  return frames;
}

/** As many whole characters of a detail as it may have. */
function cut(detail) {
  const room = new Uint8Array(LONGEST_DETAIL);
  const { written } = new TextEncoder().encodeInto(detail, room);
  return room.subarray(0, written);
}

/**
 * Reads one whole message, anything that a peer may send. Throws a
 * `ProtocolError`. While `greeted` is false, because the peer's Hello hasn't come
 * yet, nothing else is accepted. `missing` says how many bytes are still to come of a
 * message that arrives in parts; 0 if none does. After a Fin or a goodbye the peer has
 * `finished`.
 */
export function decode(bytes, options = {}) {
  const { greeted = true, maxFrame = 8 << 20, missing = 0, finished = false } = options;
  if (bytes.length === 0) throw new ProtocolError("EmptyFrame");
  const [tag] = bytes;
  const longestData = Math.min(maxFrame, PART) + 1;
  const longest =
    maxFrame > PART ? PART + 1 + LONGEST_VARINT : Math.max(longestData, LONGEST_CONTROL);
  checkLength(bytes.length, greeted ? longest : LONGEST_CONTROL);
  if (!greeted && tag !== 1) throw new ProtocolError("HelloExpected", named(tag));
  const isReserved = tag >= FIRST_RESERVED && tag <= LAST_RESERVED;
  if (tag >= TAGS.length && !isReserved) throw new ProtocolError("UnknownTag", named(tag));

  const type = isReserved ? "reserved" : TAGS[tag];
  const limits = { data: longestData, part: PART + 1 + (missing === 0 ? LONGEST_VARINT : 0) };
  checkLength(bytes.length, limits[type] ?? LONGEST_CONTROL);
  const isMessage = type === "data" || type === "part";
  if (isMessage && finished) throw new ProtocolError("AfterFin");
  if (type === "data" && missing > 0) throw new ProtocolError("BrokenParts");
  const body = bytes.subarray(1);
  const malformed = () => new ProtocolError("Malformed", named(tag));
  switch (type) {
    case "data":
      return { type, body };
    case "hello":
      return { type, ...readHello(body, malformed) };
    case "goodbye":
      return { type, ...readGoodbye(body, malformed) };
    case "part":
      return { type, ...readPart(body, maxFrame, missing, malformed) };
    case "reserved":
      return { type };
    case "alive":
    case "fin":
      if (body.length !== 0) throw malformed();
      return { type };
    default:
      if (body.length !== 8) throw malformed();
      return { type, nonce: body };
  }
}

function readPart(body, maxFrame, missing, malformed) {
  if (missing > 0) {
    if (body.length === 0 || body.length > missing) throw new ProtocolError("BrokenParts");
    return { body };
  }
  const numbers = new Numbers(body, malformed);
  const length = numbers.read(32n);
  if (length <= PART) throw new ProtocolError("BrokenParts");
  checkLength(length, maxFrame);
  const rest = body.subarray(numbers.at);
  if (rest.length === 0) throw new ProtocolError("BrokenParts");
  checkLength(1 + body.length, 1 + numbers.at + PART);
  return { length, body: rest };
}

function readGoodbye(body, malformed) {
  if (body.length === 0) throw malformed();
  const numbers = new Numbers(body, malformed, 1);
  const length = numbers.read(64n);
  const detail = body.subarray(numbers.at);
  if (length > LONGEST_DETAIL || detail.length !== length) throw malformed();
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return { code: body[0], detail: decoder.decode(detail) };
  } catch {
    throw malformed();
  }
}

/** Reads varints, one after the other. */
class Numbers {
  #body;
  #malformed;
  /** Where the next one begins. */
  at;

  constructor(body, malformed, at = 0) {
    this.#body = body;
    this.#malformed = malformed;
    this.at = at;
  }

  read(bits) {
    let value = 0n;
    for (let shift = 0n; shift < bits; shift += 7n) {
      if (this.at >= this.#body.length) throw this.#malformed();
      const byte = this.#body[this.at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (value >> bits !== 0n) throw this.#malformed();
        return Number(value);
      }
    }
    throw this.#malformed();
  }
}

function readHello(body, malformed) {
  if (body.length < 5) throw malformed();
  if (MAGIC.some((byte, index) => body[index] !== byte)) throw new ProtocolError("WrongMagic");
  if (body[4] !== VERSION) throw new ProtocolError("WrongVersion", `version=${body[4]}`);

  const numbers = new Numbers(body, malformed, 5);
  const interval = numbers.read(64n);
  const detectionTime = numbers.read(64n);
  const minInterval = numbers.read(64n);
  const maxMissed = numbers.read(32n);
  const maxFrame = numbers.read(32n);
  const instance = body.slice(numbers.at, numbers.at + 8);
  if (instance.length < 8) throw malformed();
  // Bytes behind the last field are a later version's.

  const possible =
    interval >= 1 &&
    interval <= LONGEST_TIME &&
    interval < detectionTime &&
    detectionTime <= LONGEST_TIME * (maxMissed + 1) &&
    minInterval >= 1 &&
    minInterval <= LONGEST_TIME &&
    maxMissed >= 1 &&
    maxMissed <= 255 &&
    maxFrame >= 1 &&
    maxFrame < 2 ** 32 - 1;
  if (!possible) throw new ProtocolError("ImpossibleHello");
  return { interval, detectionTime, minInterval, maxMissed, maxFrame, instance };
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

function joined(header, body) {
  const frame = new Uint8Array(header.length + body.length);
  frame.set(header);
  frame.set(body, header.length);
  return frame;
}

function checkLength(length, max) {
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
  const { detectWithin = 14_000, maxMissed = 3, maxFrame = 8 << 20, linger = 30_000 } = options;
  const { timeout = (detectWithin * 3) / 14 } = options;
  const { interval = detectWithin - maxMissed * timeout } = options;
  const { minInterval = Math.min(interval / 2, 1000) } = options;
  for (const [name, value] of Object.entries({ interval, timeout, minInterval, linger })) {
    if (!(value > 0 && value <= LONGEST_TIME / 1000)) {
      throw new RangeError(`${name} is ${value}, and has to be a time above zero`);
    }
  }
  if (!(Number.isInteger(maxMissed) && maxMissed >= 1 && maxMissed <= 255)) {
    throw new RangeError(`maxMissed is ${maxMissed}, and has to be from 1 to 255`);
  }
  return { interval, timeout, maxMissed, minInterval, maxFrame, linger };
}
