/**
 * A heartbeat in a WebSocket, for web pages, Workers and node. One module, no
 * dependencies; types.d.ts says what each part of its interface promises.
 *
 * A page can't see WebSocket's own pings, and a socket whose server is dead looks open
 * for ever. So both ends send frames of this project's protocol, each in a binary message
 * of its own. The specification is docs/protocol.md, "Frames in WebSocket messages".
 *
 *     import { Heartbeat, reconnecting } from "heartbeat-js";
 *
 *     const open = () => new Heartbeat(new WebSocket(url), { detectWithin: 4000 });
 *     const server = reconnecting(open);
 *     server.addEventListener("connected", () => server.send(bytes));
 *     server.addEventListener("message", ({ detail }) => show(detail)); // Uint8Array
 *     server.addEventListener("suspect", ({ detail }) => warn(detail.silentFor));
 *     server.addEventListener("recovered", () => warn(null));
 *     server.addEventListener("dead", ({ detail }) => warn(detail.cause));
 *     server.addEventListener("closed", ({ detail }) => warn(detail.reason));
 *
 * What isn't in here: the limit for floods of pings (a page trusts the server that it
 * came from), suspicion before the first missed beat, and signs of life while the page's
 * script doesn't run.
 *
 * @import { Close, DecodeOptions, End, Frame, Hello, Socket } from "./types.d.ts"
 * @import { HeartbeatOptions, ReconnectingOptions, Status } from "./types.d.ts"
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
 * The next part waits while the browser says that it holds this many bytes. Chromium and
 * its kernel hold about 1.2 MB more that nobody counts: on a line of 500 kB/s an answer
 * of ours takes 2 to 3 seconds.
 */
const AHEAD = 65_536;

/** The longest time that a timer takes: 24.8 days. */
const LONGEST_WAIT = 2 ** 31 - 1;

/** The code of the goodbye that answers a goodbye. */
const RECEIVED = 8;

/** No sooner than this after the last one another Alive leaves. */
const SHORTEST_SIGN_INTERVAL = 20;

/** A verdict that comes later than this waits for `LOOK`: what arrived is read first. */
const PUNCTUAL = 20;
const LOOK = 50;

/** `WebSocket.OPEN`, also where there is no `WebSocket`. */
const OPEN = 1;

const TAGS = ["data", "hello", "ping", "pong", "goodbye", "alive", "fin", "part"];
const FIRST_RESERVED = 0x40;
const LAST_RESERVED = 0x7f;
const MAGIC = [0x48, 0x42, 0x54, 0x00];
const VERSION = 1;
const LONGEST_TIME = 365 * 86_400 * 1_000_000; // in microseconds
const LONGEST_FRAME = 2 ** 32 - 2;

export class Heartbeat extends EventTarget {
  /** @type {Socket} */
  #socket;
  #config;
  /** @type {"opening" | "idle" | "round" | "ended"} */
  #phase = "opening";
  #instance = crypto.getRandomValues(new Uint8Array(8));
  /** @type {Hello | null} */
  #peer = null;
  /** The longest message that the server accepts, as far as we know. */
  #longest = 0;
  /**
   * The message that arrives in parts: its length, and what is there.
   * @type {{ length: number, missing: number, parts: Uint8Array[] } | null}
   */
  #arriving = null;
  /**
   * What waits to be sent, in order: frames of messages, and a Fin or goodbyes behind
   * them. `sent` is called for one that was handed over.
   * @type {{ bytes: Uint8Array<ArrayBuffer>, sent?: () => void }[]}
   */
  #queue = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #pump;
  /**
   * Whether we send no more messages.
   * @type {"queued" | "said" | null}
   */
  #fin = null;
  #peerFinished = false;
  /**
   * That we leave: whether it was said and confirmed, and who waits for that.
   * @type {Leaving | null}
   */
  #leaving = null;
  /**
   * That the server leaves while we do, and whether we answered.
   * @type {{ code: number, detail: string, answered: boolean } | null}
   */
  #peerLeft = null;
  #heardAt = performance.now();
  /** When the interval is over, or the next step of a round is due. */
  #due = 0;
  #verdictAt;
  /** @type {{ id: ReturnType<typeof setTimeout>, fires: number } | null} */
  #timer = null;
  /** Somebody wants to know now: the round that begins isn't put off. */
  #probed = false;
  #missed = 0;
  /** Since the last sign of life: stalls of our own that were forgiven, and whether a
   * late verdict has waited for what had arrived. */
  #forgiven = 0;
  #looked = false;
  /**
   * The last 2 · maxMissed pings.
   * @type {{ nonce: Uint8Array, sentAt: number }[]}
   */
  #pings = [];
  /** @type {number | null} */
  #lastRtt = null;
  #pingAt = -Infinity;
  #aliveAt = -Infinity;
  /** @type {Close | null} */
  #close = null;
  /**
   * Events that wait for the listeners of the one before: none is told within another.
   * @type {Event[]}
   */
  #events = [];
  #telling = false;
  #ended;
  #unlisten;

  /**
   * @param {Socket} socket
   * @param {HeartbeatOptions} options
   */
  constructor(socket, options = {}) {
    super();
    this.#config = configure(options);
    this.#socket = socket;
    /** @type {{ promise: Promise<End>, resolve: (end: End) => void }} */
    this.#ended = withResolvers();
    socket.binaryType = "arraybuffer";
    this.#unlisten = listen([
      [socket, "open", this.#onOpen],
      [socket, "message", this.#onMessage],
      [socket, "close", this.#onClose],
      [options.signal, "abort", this.#onAbort],
    ]);
    // The close event says the same. In node an error that nobody listens to ends the
    // process, also behind the end.
    socket.addEventListener("error", () => {});
    // A server that hangs accepts connections all the same: its kernel does.
    this.#verdictAt = this.#heardAt + this.detectionTime;
    this.#arm(this.#verdictAt);
    // Behind the listeners that the caller adds.
    if (options.signal?.aborted) queueMicrotask(this.#onAbort);
    else if (socket.readyState > OPEN) queueMicrotask(() => this.#die("unreachable"));
    else if (socket.readyState === OPEN) this.#onOpen();
  }

  get detectionTime() {
    const { timeout, maxMissed } = this.#config;
    return this.#idleInterval() + maxMissed * timeout;
  }

  get status() {
    return {
      state: this.#state(),
      silentFor: performance.now() - this.#heardAt,
      missed: this.#missed,
      lastRtt: this.#lastRtt,
      peer: this.#peer,
    };
  }

  get buffered() {
    const waiting = this.#queue.reduce((sum, { bytes }) => sum + bytes.length, 0);
    return waiting + this.#socket.bufferedAmount;
  }

  get ended() {
    return this.#ended.promise;
  }

  /** @param {ArrayBuffer | ArrayBufferView} body */
  send(body) {
    const bytes = bytesOf(body);
    if (!this.#maySend()) return false;
    check(bytes.length <= this.#longest, { byteLength: bytes.length });
    for (const frame of inFrames(bytes)) this.#enqueue(frame);
    return true;
  }

  probe() {
    if (!this.#isOpen()) return false;
    // A round that is under way asks already, and ends sooner.
    if (this.#phase === "idle") {
      this.#probed = true;
      this.#arm(Math.max(performance.now(), this.#pingAt + this.#peerMinInterval()));
    }
    return true;
  }

  finish() {
    if (!this.#maySend()) return false;
    this.#fin = "queued";
    this.#enqueue({ type: "fin" }, () => {
      this.#fin = "said";
      this.#settle();
    });
    return true;
  }

  close(code = 0, detail = "") {
    checkCode(code);
    if (this.#leaving !== null) return this.#leaving.promise;
    if (this.#phase === "ended") return Promise.resolve(false);
    /** @type {Leaving} */
    const leaving = { code, detail, said: false, confirmed: false, ...withResolvers() };
    this.#leaving = leaving;
    if (this.#phase === "opening") {
      this.abort(code, detail);
      return leaving.promise;
    }
    const isOver = () => this.#end(this.#outcome() ?? closed("unconfirmed", leaving));
    leaving.timer = setTimeout(isOver, Math.min(this.#config.linger, LONGEST_WAIT));
    this.#enqueue({ type: "goodbye", code, detail }, () => (leaving.said = true));
    return leaving.promise;
  }

  abort(code = 0, detail = "") {
    checkCode(code);
    // Nothing was sent that could be confirmed.
    const reason = this.#phase === "opening" ? "local" : "unconfirmed";
    if (this.#phase !== "ended" && !this.#leaving?.said) {
      this.#transmit({ type: "goodbye", code, detail });
    }
    this.#end(this.#outcome() ?? closed(reason, { code, detail }));
  }

  /** @returns {Status["state"]} */
  #state() {
    if (this.#phase === "opening" || this.#phase === "ended") return this.#phase;
    if (this.#leaving !== null) return "closing";
    return this.#missed > 0 ? "suspect" : "alive";
  }

  #isOpen() {
    return this.#phase !== "ended" && this.#socket.readyState === OPEN;
  }

  #maySend() {
    return this.#isOpen() && this.#fin === null && this.#leaving === null;
  }

  // ---- what happens -------------------------------------------------------

  #onAbort = () => this.abort();

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
    this.#longest = maxFrame;
    this.#heardAt = performance.now();
    this.#forgiven = 0;
    this.#phase = "idle";
    // Pages that were opened together don't ping together.
    this.#arm(this.#heardAt + Math.random() * interval);
  };

  /** @param {{ data: unknown }} event */
  #onMessage = ({ data }) => {
    if (!isArrayBuffer(data)) return; // text has no place here
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
      if (frame.type === "hello" && equal(frame.instance, this.#instance)) {
        throw new ProtocolError("Loop");
      }
    } catch (thrown) {
      const error = /** @type {ProtocolError} */ (thrown); // nothing else is
      return this.#giveUp("protocol", 4, error.message, error);
    }
    if (frame.type === "hello") this.#greet(frame);
    // A question is no answer: it doesn't show that the server hears us.
    if (frame.type !== "ping") this.#heard();
    this.#take(frame);
    // In a hidden page the timer for that may be a minute away.
    this.#sendOn();
  };

  /** @param {Frame} frame */
  #take(frame) {
    switch (frame.type) {
      case "data":
        return this.#tell("message", frame.body);
      case "part":
        return this.#putTogether(frame);
      case "ping":
        this.#transmit({ type: "pong", nonce: frame.nonce });
        return this.#askAlong();
      case "pong":
        return this.#answered(frame.nonce);
      case "fin":
        if (this.#peerFinished) return;
        this.#peerFinished = true;
        this.#tell("finished", {});
        return this.#settle();
      case "goodbye":
        return this.#part(frame);
    }
  }

  /** @param {Hello} hello */
  #greet(hello) {
    const first = this.#peer === null;
    this.#peer = hello;
    // It may have been counted on already: a later one takes nothing back.
    this.#longest = first ? hello.maxFrame : Math.max(this.#longest, hello.maxFrame);
    if (first) this.#tell("connected", { peer: hello });
  }

  /** @param {Frame & { type: "part" }} part */
  #putTogether({ length, body }) {
    if (length !== undefined) this.#arriving = { length, missing: length, parts: [] };
    const arriving = this.#arriving;
    if (arriving === null) return; // `decode` has refused it
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
    if (this.#peer === null) return;
    const { interval: asks, detectionTime } = this.#peer;
    const needed = Math.min(this.#config.interval, asks / 1000, (detectionTime - asks) / 1000);
    const now = performance.now();
    if (now < this.#aliveAt + Math.max(needed, SHORTEST_SIGN_INTERVAL)) return;
    this.#aliveAt = now;
    this.#transmit({ type: "alive" });
  }

  /** @param {Close} event */
  #onClose = ({ code, reason, wasClean }) => {
    this.#close = { code, reason, wasClean };
    this.#die(this.#phase === "opening" ? "unreachable" : "eof");
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
    this.#looked = false;
    this.#probed = false;
    const shortened = this.#config.interval * (1 - JITTER * Math.random());
    this.#arm(now + Math.max(shortened, this.#peerMinInterval()));
    if (suspected) this.#tell("recovered", { silentFor });
  }

  /** @param {Uint8Array} nonce */
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
    if (late > timeout && this.#forgiven < maxMissed) return this.#excuse(now, late);
    if (this.#phase === "idle") return this.#beginRound(this.#due);
    if (now >= this.#verdictAt) {
      if (late > PUNCTUAL && !this.#looked) {
        this.#looked = true;
        return this.#arm(now + LOOK);
      }
      if (this.#phase === "round" && this.#hasLeft()) {
        this.#missed = Math.min(this.#missed + 1, maxMissed);
      }
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
    this.#tell("suspect", { missed: this.#missed, silentFor: now - this.#heardAt });
  };

  /**
   * We were asleep, and know nothing about the server: it is asked once.
   * @param {number} now
   * @param {number} late
   */
  #excuse(now, late) {
    const { timeout } = this.#config;
    this.#forgiven += 1;
    if (this.#phase === "idle") {
      this.#beginRound(now);
    } else {
      this.#verdictAt = Math.max(this.#verdictAt + late, now + timeout);
      // Of a socket that is opening only the end is known.
      if (this.#phase === "opening") {
        this.#arm(this.#verdictAt);
      } else {
        this.#ping();
        this.#arm(Math.min(now + timeout, this.#verdictAt));
      }
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

  /**
   * From when it was due, not from when we got round to it.
   * @param {number} due
   */
  #beginRound(due) {
    const { timeout, maxMissed } = this.#config;
    // The first interval may be shorter than others, and a piggybacked ping is early;
    // the verdict isn't sooner.
    const shortest = this.#heardAt + this.#idleInterval() * (1 - JITTER);
    const base = this.#probed ? due : Math.max(due, shortest);
    const now = performance.now();
    const asked = this.#pingAt > this.#heardAt && now - this.#pingAt < this.#spacing();
    if (this.#probed || !asked) this.#ping();
    this.#phase = "round";
    this.#verdictAt = base + maxMissed * timeout;
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

  /**
   * One timer is enough. It is only moved forward when it fires; but those of a hidden page
   * that timers set run once a minute, and so what arrives sets them there.
   * @param {number} due
   */
  #arm(due) {
    this.#due = due;
    const isHidden = globalThis.document?.hidden;
    if (this.#timer !== null && this.#timer.fires <= due && !isHidden) return;
    clearTimeout(this.#timer?.id);
    const now = performance.now();
    const delay = Math.min(Math.max(0, Math.ceil(due - now)), LONGEST_WAIT);
    this.#timer = { id: setTimeout(this.#onTimer, delay), fires: Math.min(due, now + delay) };
  }

  // ---- the end ------------------------------------------------------------

  /**
   * The server leaves, gave us up, or confirms that we leave.
   * @param {Frame & { type: "goodbye" }} goodbye
   */
  #part({ code, detail }) {
    const isAnswer = code === RECEIVED;
    if (code >= 2 && code <= 7) {
      this.#die("given up", { code, detail });
    } else if (this.#leaving === null) {
      // Everything before it was told. What waits is given up.
      if (!isAnswer) this.#transmit({ type: "goodbye", code: RECEIVED, detail: "" });
      this.#end(closed("peer", { code, detail }));
    } else if (isAnswer && this.#leaving.said) {
      this.#leaving.confirmed = true;
      this.#settle();
    } else if (this.#peerLeft === null) {
      const peerLeft = { code, detail, answered: isAnswer };
      this.#peerLeft = peerLeft;
      if (isAnswer) return;
      // Behind our own.
      this.#enqueue({ type: "goodbye", code: RECEIVED, detail: "" }, () => {
        peerLeft.answered = true;
        this.#settle();
      });
    }
  }

  /** Closes if both sides have said all, and the server has it. */
  #settle() {
    const isAnswered = this.#peerLeft?.answered ?? true;
    if (this.#leaving?.confirmed && isAnswered) {
      this.#end(closed("local", this.#leaving));
    } else if (this.#fin === "said" && this.#peerFinished) {
      this.#end(closed("finished", { code: 0, detail: "" }));
    }
  }

  /**
   * What an end of the socket comes to: a goodbye that came is no death.
   * @returns {Outcome | null}
   */
  #outcome() {
    if (this.#leaving?.confirmed) return closed("local", this.#leaving);
    return this.#peerLeft && closed("peer", this.#peerLeft);
  }

  /**
   * The server is told why; not a word of what else waits.
   * @param {Cause} cause
   * @param {number} code
   * @param {string} detail
   * @param {Error | null} error
   */
  #giveUp(cause, code, detail, error = null) {
    this.#transmit({ type: "goodbye", code, detail });
    this.#die(cause, { detail, error });
  }

  /**
   * @param {Cause} cause
   * @param {{ code?: number | null, detail?: string, error?: Error | null }} why
   */
  #die(cause, { code = null, detail = "", error = null } = {}) {
    const silentFor = performance.now() - this.#heardAt;
    const missed = this.#missed;
    const death = { type: /** @type {const} */ ("dead"), cause, silentFor, missed };
    this.#end(this.#outcome() ?? { ...death, code, detail, error });
  }

  /** @param {Outcome} outcome */
  #end(outcome) {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    this.#queue = [];
    this.#arriving = null;
    clearTimeout(this.#pump);
    clearTimeout(this.#leaving?.timer);
    clearTimeout(this.#timer?.id);
    this.#unlisten();
    // Nobody waits for how the browser gets on with it: it reads and throws away what
    // comes until the server's close frame, for a time of its own.
    this.#socket.close();
    /** @type {End} */
    const end = { ...outcome, close: this.#close };
    this.#deliver(end.type, end);
    this.#ended.resolve(end);
    this.#leaving?.resolve(end.type === "closed" && end.reason === "local");
  }

  /**
   * Behind what waits to be sent.
   * @param {Frame} frame
   * @param {() => void} [sent]
   */
  #enqueue(frame, sent) {
    this.#queue.push({ bytes: encode(frame), sent });
    this.#sendOn();
  }

  /** As long as the browser holds little: so beats go between two parts. */
  #sendOn = () => {
    clearTimeout(this.#pump);
    let count = 0;
    while (count < this.#queue.length && this.#socket.bufferedAmount < AHEAD) {
      const { bytes, sent } = this.#queue[count++];
      this.#write(bytes);
      sent?.();
    }
    this.#queue.splice(0, count);
    // Nobody tells when it has less.
    if (this.#queue.length > 0) this.#pump = setTimeout(this.#sendOn, 5);
  };

  /** @param {Frame} frame */
  #transmit(frame) {
    this.#write(encode(frame));
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  #write(bytes) {
    if (this.#socket.readyState === OPEN) this.#socket.send(bytes);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    if (this.#phase !== "ended") this.#deliver(type, detail);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #deliver(type, detail) {
    this.#events.push(new CustomEvent(type, { detail }));
    if (this.#telling) return;
    this.#telling = true;
    for (let event; (event = this.#events.shift()); ) this.dispatchEvent(event);
    this.#telling = false;
  }
}

/**
 * @typedef {import("./types.d.ts").Dead["cause"]} Cause
 * @typedef {Omit<import("./types.d.ts").Closed, "close">
 *   | Omit<import("./types.d.ts").Dead, "close">} Outcome
 * @typedef {{
 *   code: number, detail: string, said: boolean, confirmed: boolean,
 *   promise: Promise<boolean>, resolve: (confirmed: boolean) => void,
 *   timer?: ReturnType<typeof setTimeout>,
 * }} Leaving
 */

/**
 * @param {import("./types.d.ts").Closed["reason"]} reason
 * @param {{ code: number, detail: string }} goodbye
 * @returns {Outcome}
 */
function closed(reason, { code, detail }) {
  return { type: "closed", reason, code, detail };
}

// ---- one connection after the other -----------------------------------------

/** All that a heartbeat tells. */
const EVENTS = [
  "connected", "message", "beat", "suspect", "recovered", "stall", "finished", "closed", "dead",
];

/** Close codes behind which another attempt would end in the same way. */
const FINAL = [1002, 1003, 1007, 1008, 1009, 1010];
const SERVICE_RESTART = 1012;
const TRY_AGAIN_LATER = 1013;

/** Of a goodbye. */
const RESTARTING = 1;
const PROTOCOL = 4;
const REFUSED = 6;

/**
 * @param {(signal: AbortSignal) => Heartbeat | PromiseLike<Heartbeat>} open
 * @param {ReconnectingOptions} options
 */
export function reconnecting(open, options = {}) {
  return new Reconnecting(open, options);
}

class Reconnecting extends EventTarget {
  #open;
  #options;
  /**
   * While there is a heartbeat: `alive`, whatever it is. Without more attempts: `ended`.
   * @type {{ is: "opening", control: AbortController }
   *   | { is: "alive", connectedAt: number, again: boolean }
   *   | { is: "waiting", timer: ReturnType<typeof setTimeout>, at: number }
   *   | { is: "away" } | { is: "ended" }}
   */
  #state = { is: "away" };
  /** @type {Heartbeat | null} */
  #heartbeat = null;
  /** Attempts that failed, and connections that didn't last, in a row. */
  #failures = 0;
  #ended;
  #unlisten;

  /**
   * @param {(signal: AbortSignal) => Heartbeat | PromiseLike<Heartbeat>} open
   * @param {ReconnectingOptions} options
   */
  constructor(open, options) {
    super();
    this.#open = open;
    const { first = 500, longest = 30_000, lasting = 30_000, ...others } = options;
    const { retry, signal, ...unknown } = others;
    refuseUnknown(unknown);
    checkTimes({ first, longest, lasting });
    this.#options = { first, longest, lasting, retry };
    /** @type {{ promise: Promise<End | null>, resolve: (end: End | null) => void }} */
    this.#ended = withResolvers();
    // A page that is put away has its sockets closed, and none may open meanwhile.
    const { document } = globalThis;
    const page = typeof addEventListener === "function" ? globalThis : undefined;
    this.#unlisten = listen([
      [page, "pagehide", this.#putAway],
      [document, "freeze", this.#putAway],
      [page, "pageshow", this.#comeBack],
      [document, "resume", this.#comeBack],
      [page, "online", this.#onOnline],
      [signal, "abort", this.#onAbort],
    ]);
    if (signal?.aborted) this.#onAbort();
    else this.#connect();
  }

  get current() {
    return this.#heartbeat;
  }

  get state() {
    return this.#heartbeat?.status.state ?? this.#state.is;
  }

  get retryAt() {
    return this.#state.is === "waiting" ? this.#state.at : null;
  }

  get buffered() {
    return this.#heartbeat?.buffered ?? 0;
  }

  get ended() {
    return this.#ended.promise;
  }

  /** @param {ArrayBuffer | ArrayBufferView} body */
  send(body) {
    return this.#heartbeat?.send(body) ?? (bytesOf(body), false);
  }

  probe() {
    return this.#heartbeat?.probe() ?? false;
  }

  reopen(code = 0, detail = "") {
    checkCode(code);
    const state = this.#state;
    if (state.is === "alive") {
      state.again = true;
      this.#heartbeat?.close(code, detail);
    } else if (state.is === "waiting" || state.is === "opening") {
      this.#leave({ is: "away" });
      this.#connect();
    }
  }

  close(code = 0, detail = "") {
    checkCode(code);
    this.#stop();
    return this.#heartbeat?.close(code, detail) ?? Promise.resolve(false);
  }

  // ---- attempts -------------------------------------------------------------

  #connect = () => {
    const control = new AbortController();
    const state = { is: /** @type {const} */ ("opening"), control };
    this.#state = state;
    let opened;
    try {
      opened = this.#open(control.signal);
    } catch (error) {
      opened = Promise.reject(error);
    }
    /** @param {Heartbeat} heartbeat */
    const adopt = (heartbeat) => {
      if (this.#state !== state) return heartbeat.abort();
      this.#state = { is: "alive", connectedAt: Infinity, again: false };
      this.#heartbeat = heartbeat;
      for (const type of EVENTS) heartbeat.addEventListener(type, this.#relay);
      // If it had ended before.
      heartbeat.ended.then((end) => this.#onEnd(heartbeat, end));
    };
    // At once, so that none is open that isn't known.
    if (opened instanceof Heartbeat) return adopt(opened);
    opened.then(adopt, (error) => this.#state === state && this.#failed(error));
  };

  /** @param {any} event */
  #relay = ({ target, type, detail }) => {
    if (target !== this.#heartbeat) return;
    if (type === "closed" || type === "dead") return this.#onEnd(target, detail);
    if (type === "connected" && this.#state.is === "alive") {
      this.#state.connectedAt = performance.now();
    }
    this.#tell(type, detail);
  };

  /** @param {unknown} reason */
  #failed(reason) {
    const error = reason instanceof Error ? reason : new Error(String(reason));
    const nothing = { silentFor: 0, missed: 0, code: null, detail: "", close: null };
    this.#next({ type: "dead", cause: "unreachable", error, ...nothing }, false);
  }

  /**
   * @param {Heartbeat} heartbeat
   * @param {End} end
   */
  #onEnd(heartbeat, end) {
    if (heartbeat !== this.#heartbeat) return;
    this.#heartbeat = null;
    const state = this.#state;
    if (state.is === "alive") {
      const lasted = performance.now() - state.connectedAt;
      if (lasted >= this.#options.lasting) this.#failures = 0;
      return this.#next(end, state.again);
    }
    if (state.is === "ended") this.#ended.resolve(end);
    this.#tell(end.type, end);
  }

  /**
   * Another attempt, now or later; or none.
   * @param {End} end
   * @param {boolean} again
   */
  #next(end, again) {
    this.#leave({ is: "away" });
    const answer = again || (this.#options.retry?.(end) ?? isWorthIt(end));
    // Whoever was asked may have closed us.
    if (answer === false || this.#state.is === "ended") {
      this.#stop(end);
    } else if (again && end.type === "closed") {
      this.#connect();
    } else {
      this.#wait(this.#waitBehind(end) + (answer === true ? 0 : answer));
    }
    this.#tell(end.type, end);
  }

  /**
   * Exponential, with full jitter: a server that comes back isn't overrun.
   * @param {End} end
   */
  #waitBehind(end) {
    const { first, longest } = this.#options;
    const restarts = end.close?.code === SERVICE_RESTART || end.code === RESTARTING;
    if (restarts) this.#failures = 0;
    const isLater = end.close?.code === TRY_AGAIN_LATER;
    const most = isLater ? longest : Math.min(longest, first * 2 ** this.#failures);
    this.#failures += 1;
    return Math.random() * most;
  }

  /** @param {number} time */
  #wait(time) {
    const timer = setTimeout(this.#connect, Math.min(time, LONGEST_WAIT));
    this.#state = { is: "waiting", timer, at: performance.now() + time };
  }

  /**
   * Into a state in which nothing is attempted.
   * @param {{ is: "away" } | { is: "ended" }} next
   */
  #leave(next) {
    const state = this.#state;
    this.#state = next;
    if (state.is === "waiting") clearTimeout(state.timer);
    if (state.is === "opening") state.control.abort();
  }

  /** @param {End | null} end */
  #stop(end = null) {
    if (this.#state.is === "ended") return;
    this.#leave({ is: "ended" });
    this.#unlisten();
    // Otherwise its end is the last.
    if (this.#heartbeat === null) this.#ended.resolve(end);
  }

  // ---- what happens to the page -----------------------------------------------

  #putAway = () => {
    this.#leave({ is: "away" });
    // There is no time for an answer.
    this.#heartbeat?.abort();
  };

  #comeBack = () => {
    if (this.#state.is === "away") this.#connect();
  };

  #onOnline = () => {
    const state = this.#state;
    if (state.is === "waiting") {
      clearTimeout(state.timer);
      this.#failures = 0;
      const left = state.at - performance.now();
      this.#wait(Math.min(left, Math.random() * this.#options.first));
    } else {
      this.probe();
    }
  };

  #onAbort = () => {
    this.#stop();
    this.#heartbeat?.abort();
  };

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {End} end */
function isWorthIt(end) {
  if (FINAL.includes(end.close?.code ?? 0)) return false;
  if (end.type === "closed") return end.reason === "peer";
  return end.cause !== "protocol" && end.code !== PROTOCOL && end.code !== REFUSED;
}

// ---- frames -----------------------------------------------------------------

export class ProtocolError extends Error {
  /**
   * @param {string} kind
   * @param {string} detail
   */
  constructor(kind, detail = "") {
    super(detail === "" ? kind : `${kind} ${detail}`);
    this.name = "ProtocolError";
    this.kind = kind;
  }
}

/**
 * @param {Frame} frame
 * @returns {Uint8Array<ArrayBuffer>}
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
    case "part": {
      const announced = frame.length === undefined ? [] : varint(frame.length);
      return joined([tag, ...announced], frame.body);
    }
    default:
      return Uint8Array.of(tag);
  }
}

/**
 * The frames that a message travels in.
 * @param {Uint8Array} body
 */
function inFrames(body) {
  if (body.length <= PART) return [/** @type {Frame} */ ({ type: "data", body })];
  /** @type {Frame[]} */
  const frames = [];
  for (let at = 0; at < body.length; at += PART) {
    const length = at === 0 ? body.length : undefined;
    frames.push({ type: "part", length, body: body.subarray(at, at + PART) });
  }
  return frames;
}

/**
 * As many whole characters of a detail as it may have.
 * @param {string} detail
 */
function cut(detail) {
  const room = new Uint8Array(LONGEST_DETAIL);
  const { written } = new TextEncoder().encodeInto(detail, room);
  return room.subarray(0, written);
}

/**
 * @param {Uint8Array} bytes
 * @param {DecodeOptions} options
 * @returns {Frame}
 */
export function decode(bytes, options = {}) {
  const { greeted = true, maxFrame = 8 << 20, missing = 0, finished } = options;
  need(bytes.length > 0, "EmptyFrame");
  const [tag] = bytes;
  const longestData = Math.min(maxFrame, PART) + 1;
  const longest =
    maxFrame > PART ? PART + 1 + LONGEST_VARINT : Math.max(longestData, LONGEST_CONTROL);
  checkLength(bytes.length, greeted ? longest : LONGEST_CONTROL);
  need(greeted || tag === 1, "HelloExpected", tag);
  const isReserved = tag >= FIRST_RESERVED && tag <= LAST_RESERVED;
  need(tag < TAGS.length || isReserved, "UnknownTag", tag);

  const type = isReserved ? "reserved" : TAGS[tag];
  const isMessage = type === "data" || type === "part";
  const longestPart = PART + 1 + (missing === 0 ? LONGEST_VARINT : 0);
  const most = type === "data" ? longestData : longestPart;
  checkLength(bytes.length, isMessage ? most : LONGEST_CONTROL);
  need(!(isMessage && finished), "AfterFin");
  need(type !== "data" || missing === 0, "BrokenParts");
  const body = new Body(bytes);
  switch (type) {
    case "data":
      return { type, body: body.rest() };
    case "hello":
      return { type, ...readHello(body) };
    case "goodbye":
      return { type, ...readGoodbye(body) };
    case "part":
      return { type, ...readPart(body, maxFrame, missing) };
    case "reserved":
      return { type };
    case "alive":
    case "fin":
      body.need(bytes.length === 1);
      return { type };
    default:
      body.need(bytes.length === 9);
      return { type: type === "ping" ? type : "pong", nonce: body.rest() };
  }
}

/** What is behind the tag of a frame, read from the front. */
class Body {
  #frame;
  #at = 1;

  /** @param {Uint8Array} frame */
  constructor(frame) {
    this.#frame = frame;
  }

  /** @param {boolean} isRight */
  need(isRight) {
    need(isRight, "Malformed", this.#frame[0]);
  }

  byte() {
    return this.#frame[this.#at++];
  }

  /**
   * A varint. Above 2^53 it isn't exact, and out of every range.
   * @param {number} bits
   */
  number(bits) {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      this.need(shift < bits && this.#at < this.#frame.length);
      const byte = this.byte();
      const digit = (byte & 0x7f) * 2 ** shift;
      this.need(digit < 2 ** bits);
      value += digit;
      if (byte < 0x80) return value;
    }
  }

  /** @param {number} most */
  checkRest(most) {
    checkLength(this.#frame.length, this.#at + most);
  }

  rest() {
    return this.#frame.subarray(this.#at);
  }
}

/**
 * @param {Body} part
 * @param {number} maxFrame
 * @param {number} missing
 */
function readPart(part, maxFrame, missing) {
  const length = missing > 0 ? undefined : part.number(32);
  if (length !== undefined) {
    need(length > PART, "BrokenParts");
    checkLength(length, maxFrame);
  }
  const body = part.rest();
  need(body.length > 0, "BrokenParts");
  part.checkRest(PART);
  need(body.length <= (length ?? missing), "BrokenParts");
  return { length, body };
}

/** @param {Body} goodbye */
function readGoodbye(goodbye) {
  goodbye.need(goodbye.rest().length > 0);
  const code = goodbye.byte();
  const length = goodbye.number(64);
  const detail = goodbye.rest();
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(detail);
  // What isn't UTF-8 comes out as something else, and what is too long doesn't fit.
  goodbye.need(detail.length === length && equal(cut(text), detail));
  return { code, detail: text };
}

/** @param {Body} hello */
function readHello(hello) {
  hello.need(hello.rest().length >= 5);
  need(MAGIC.every((byte) => byte === hello.byte()), "WrongMagic");
  const version = hello.byte();
  if (version !== VERSION) throw new ProtocolError("WrongVersion", `version=${version}`);

  const interval = hello.number(64);
  const detectionTime = hello.number(64);
  const minInterval = hello.number(64);
  const maxMissed = hello.number(32);
  const maxFrame = hello.number(32);
  // Bytes behind the last field are a later version's.
  const instance = hello.rest().slice(0, 8);
  hello.need(instance.length === 8);

  const possible =
    isUpTo(LONGEST_TIME, interval) &&
    interval < detectionTime &&
    detectionTime <= LONGEST_TIME * (maxMissed + 1) &&
    isUpTo(LONGEST_TIME, minInterval) &&
    isUpTo(255, maxMissed) &&
    isUpTo(LONGEST_FRAME, maxFrame);
  need(possible, "ImpossibleHello");
  return { interval, detectionTime, minInterval, maxMissed, maxFrame, instance };
}

/**
 * Seven bits a byte, the least significant ones first.
 * @param {number} number
 * @returns {number[]}
 */
function varint(number) {
  if (number < 0x80) return [number];
  return [(number % 128) | 0x80, ...varint(Math.floor(number / 128))];
}

/**
 * @param {number[]} header
 * @param {Uint8Array} body
 */
function joined(header, body) {
  const frame = new Uint8Array(header.length + body.length);
  frame.set(header);
  frame.set(body, header.length);
  return frame;
}

/**
 * @param {number} length
 * @param {number} max
 */
function checkLength(length, max) {
  if (length > max) throw new ProtocolError("FrameTooLong", `length=${length} max=${max}`);
}

/**
 * @param {boolean} isRight
 * @param {string} kind
 * @param {number} [tag]
 */
function need(isRight, kind, tag) {
  if (isRight) return;
  const named = tag === undefined ? "" : `tag=0x${tag.toString(16).padStart(2, "0")}`;
  throw new ProtocolError(kind, named);
}

/**
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
function equal(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/** @param {number} millis */
function micros(millis) {
  return Math.max(1, Math.round(millis * 1000));
}

// ---- what callers give ------------------------------------------------------

/**
 * Also one of another frame or realm.
 * @param {unknown} value
 * @returns {value is ArrayBuffer}
 */
function isArrayBuffer(value) {
  return /Buffer\]$/.test(Object.prototype.toString.call(value));
}

/** @param {unknown} body */
function bytesOf(body) {
  if (ArrayBuffer.isView(body)) {
    return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  }
  if (isArrayBuffer(body)) return new Uint8Array(body);
  throw new TypeError("not an ArrayBuffer, nor a view of one");
}

/** @param {number} code */
function checkCode(code) {
  const isOwn = Number.isInteger(code) && code >= 64 && code <= 127;
  check(code === 0 || code === 1 || isOwn, { code });
}

/**
 * Three misses, and interval to timeout as 5 to 3, unless somebody knows better.
 * @param {HeartbeatOptions} options
 */
function configure(options) {
  const { maxMissed = 3, maxFrame = 8 << 20, linger = 30_000, ...others } = options;
  const { detectWithin = 14_000, timeout = (detectWithin * 3) / 14, ...rest } = others;
  const round = maxMissed * timeout;
  const { interval = detectWithin - round, signal: _, ...more } = rest;
  const { minInterval = Math.min(interval / 2, 1000, round), ...unknown } = more;
  refuseUnknown(unknown);
  check(isUpTo(255, maxMissed), { maxMissed });
  check(isUpTo(LONGEST_FRAME, maxFrame), { maxFrame });
  checkTimes({ detectWithin, timeout, interval, minInterval, linger });
  // In microseconds, as on the wire.
  const sum = options.detectWithin === undefined || micros(interval + round) === micros(detectWithin);
  check(sum, { detectWithin });
  check(minInterval <= Math.min(interval, round), { minInterval });
  return { interval, timeout, maxMissed, minInterval, maxFrame, linger };
}

/** @param {object} unknown */
function refuseUnknown(unknown) {
  for (const name of Object.keys(unknown)) throw new TypeError(`no such option: ${name}`);
}

/** @param {Record<string, number>} times */
function checkTimes(times) {
  for (const [name, time] of Object.entries(times)) {
    check(time > 0 && time <= LONGEST_TIME / 1000, { [name]: time });
  }
}

/**
 * @param {number} most
 * @param {number} value
 */
function isUpTo(most, value) {
  return Number.isInteger(value) && value >= 1 && value <= most;
}

/**
 * @param {boolean} isRight
 * @param {Record<string, number>} named
 */
function check(isRight, named) {
  if (isRight) return;
  const [[name, value]] = Object.entries(named);
  throw new RangeError(`${name} is out of bounds: ${value}`);
}

/**
 * Where there is something to listen to. Gives what undoes it.
 * @param {[Pick<Socket, "addEventListener" | "removeEventListener"> | undefined, string,
 *   (event: any) => void][]} wanted
 */
function listen(wanted) {
  for (const [target, type, act] of wanted) target?.addEventListener(type, act);
  return () => {
    for (const [target, type, act] of wanted) target?.removeEventListener(type, act);
  };
}

/** @returns {{ promise: Promise<any>, resolve: (value: any) => void }} */
function withResolvers() {
  /** @type {(value: any) => void} */
  let resolve = () => {};
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
