// The types of heartbeat.js, and what each part of its interface promises. Times are in
// milliseconds, except in frames.

/** A socket: a browser's `WebSocket`, or one of the package `ws` for node. */
export interface Socket {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount: number;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(): void;
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
}

export interface HeartbeatOptions {
  /**
   * How soon a death has to be known. Default 14,000. The three below follow from it,
   * or are given one by one: `interval + maxMissed * timeout` is this.
   */
  detectWithin?: number;
  /** The silence after which the server is pinged. 5/14 of `detectWithin`. */
  interval?: number;
  /** How long a ping may go unanswered. 3/14 of `detectWithin`. */
  timeout?: number;
  /** How many may, in a row: 1 to 255. Default 3. */
  maxMissed?: number;
  /**
   * How often the server may ping at most. At most `interval`, and at most
   * `maxMissed * timeout`. Default: the least of these two, half of `interval`, and 1,000.
   */
  minInterval?: number;
  /** The longest message to accept, in bytes: 1 to 4,294,967,294. Default 8 MiB. */
  maxFrame?: number;
  /** How long `close` waits for the server's answer. Default 30,000. */
  linger?: number;
  /** Calls `abort` when it is aborted. */
  signal?: AbortSignal;
}

/** What the socket's close event said. */
export interface Close {
  code: number;
  reason: string;
  wasClean: boolean;
}

/** An orderly end. */
export interface Closed {
  type: "closed";
  /**
   * - `local`: we left, and the server has taken in everything that was sent.
   * - `unconfirmed`: we left, and it didn't say so.
   * - `peer`: the server left.
   * - `finished`: both sides had finished.
   */
  reason: "local" | "unconfirmed" | "peer" | "finished";
  /**
   * The goodbye's code: the server's with `peer`, otherwise ours. 0 is leaving, 1 is
   * restarting, 64 to 127 are the application's.
   */
  code: number;
  /** The goodbye's words. The server's are any text: show them as text. */
  detail: string;
  /** Null if the socket was closed by us. */
  close: Close | null;
}

/** Every other end. */
export interface Dead {
  type: "dead";
  /**
   * - `silent`: nothing arrived, and the pings weren't answered.
   * - `given up`: the server gave us up; `code` and `detail` say why.
   * - `protocol`: the server broke the protocol; `error` says how.
   * - `eof`: the socket was closed without a goodbye.
   * - `unreachable`: the socket never opened.
   */
  cause: "silent" | "given up" | "protocol" | "eof" | "unreachable";
  /** Since the last sign of life. */
  silentFor: number;
  /** Beats missed in a row. */
  missed: number;
  /** The code of the server's goodbye with `given up`, otherwise null. */
  code: number | null;
  /** The words of that goodbye, or of ours. */
  detail: string;
  error: Error | null;
  /** Null if the socket was closed by us. */
  close: Close | null;
}

export type End = Closed | Dead;

/** What the `detail` of each event is. The last event is `closed` or `dead`, once. */
export interface HeartbeatEvents {
  /** The server's first Hello has come: it may be sent to. */
  connected: { peer: Hello };
  message: Uint8Array;
  /** A ping was answered. */
  beat: { rtt: number };
  /** A beat was missed. It isn't dead yet. */
  suspect: { missed: number; silentFor: number };
  /** It lives; so long it was silent. */
  recovered: { silentFor: number };
  /** The page itself was asleep or blocked; the server isn't blamed. */
  stall: { late: number };
  /** The server sends no more messages. It still takes ours. */
  finished: Record<string, never>;
  closed: Closed;
  dead: Dead;
}

type Listener<T> = ((event: CustomEvent<T>) => void) | null;

/** An EventTarget that knows its events. */
interface Events {
  addEventListener<K extends keyof HeartbeatEvents>(
    type: K,
    listener: Listener<HeartbeatEvents[K]>,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof HeartbeatEvents>(
    type: K,
    listener: Listener<HeartbeatEvents[K]>,
    options?: boolean | EventListenerOptions,
  ): void;
  dispatchEvent(event: Event): boolean;
}

export interface Status {
  state: "opening" | "alive" | "suspect" | "closing" | "ended";
  silentFor: number;
  missed: number;
  /** Of the last beat. */
  lastRtt: number | null;
  /** The server's last Hello. */
  peer: Hello | null;
}

/** One connection. */
export interface Heartbeat extends Events {}
export class Heartbeat {
  /**
   * Takes a socket that is opening or open, and that nobody has sent anything on. A
   * socket that is closed already is told as `dead`.
   *
   * Throws a RangeError if an option is out of its bounds, and a TypeError if there is
   * none of that name.
   */
  constructor(socket: Socket, options?: HeartbeatOptions);

  /** The silence after which the server is dead, at the latest. */
  readonly detectionTime: number;
  readonly status: Status;
  /** The bytes that were given to `send` and haven't left the page. */
  readonly buffered: number;
  /** How it ended. Never rejects. */
  readonly ended: Promise<End>;

  /**
   * Sends a binary message; the bytes are copied. False if it wasn't handed over: before
   * the socket is open, when it is closing, and after `finish`, `close` or the end. True
   * means that it is on its way; only `close` confirms.
   *
   * Throws a TypeError if it isn't binary, and a RangeError if it is longer than the
   * server accepts.
   */
  send(body: ArrayBuffer | ArrayBufferView): boolean;

  /**
   * Asks now, or as soon as the server's min interval has passed since our last ping.
   * Within `maxMissed * timeout` from then on the server has answered, or is dead. A
   * message that arrives first is an answer too. False if there is nobody to ask.
   */
  probe(): boolean;

  /**
   * Says, behind everything that was sent, that no more messages follow, and goes on
   * receiving. False if there is nobody to say it to, or it was said. When both sides
   * have finished, the connection is closed.
   */
  finish(): boolean;

  /**
   * Says goodbye behind everything that was sent, and closes when the server has taken
   * that in; `message` goes on until then. `code` is 0 (leaving), 1 (restarting), or
   * one of the application's, 64 to 127; `detail` has at most 123 bytes, or is cut.
   * Resolves to whether the server has taken everything in. Never rejects.
   *
   * Throws a RangeError for any other code.
   */
  close(code?: number, detail?: string): Promise<boolean>;

  /**
   * Says goodbye and closes at once. What waits to be sent is given up, and nothing is
   * confirmed.
   */
  abort(code?: number, detail?: string): void;
}

export interface ReconnectingOptions {
  /**
   * The longest that the first wait may be. Each failure doubles it. A wait is drawn
   * evenly from zero to that. Default 500.
   */
  first?: number;
  /** The longest that any wait may be. Default 30,000. */
  longest?: number;
  /** A connection that lasted for so long makes the next wait a first one. Default 30,000. */
  lasting?: number;
  /**
   * Whether another attempt is worth it. True, false, or a time that is waited in
   * addition. Undefined leaves it to the default: not after we left, not if the server
   * speaks another protocol or refuses us, and not behind the close codes 1002, 1003 and
   * 1007 to 1010.
   */
  retry?: (end: End) => boolean | number | undefined;
  /** Ends it all when it is aborted. */
  signal?: AbortSignal;
}

/** One connection after the other, and never two at once. It has the events of all. */
export interface Reconnecting extends Events {
  /** The connection that there is. */
  readonly current: Heartbeat | null;
  /**
   * That of the connection. Without one: `opening`; `waiting` for the next attempt;
   * `away` while the page is put away or frozen; `ended`.
   */
  readonly state: Status["state"] | "waiting" | "away";
  /** When the next attempt is made, as `performance.now()` counts. Null if none waits. */
  readonly retryAt: number | null;
  /** The bytes that were given to `send` and haven't left the page. */
  readonly buffered: number;
  /** The end behind which nothing is attempted. Null if there was no connection to end. */
  readonly ended: Promise<End | null>;
  /** As `Heartbeat.send`. False while there is no connection. */
  send(body: ArrayBuffer | ArrayBufferView): boolean;
  /** As `Heartbeat.probe`. */
  probe(): boolean;
  /** Closes the connection in order, and opens another. Without one: tries now. */
  reopen(code?: number, detail?: string): void;
  /** As `Heartbeat.close`, and makes no more attempts. */
  close(code?: number, detail?: string): Promise<boolean>;
}

/**
 * Keeps a connection open. `open` makes each: a `Heartbeat`, or a promise of one. Its
 * signal is aborted when the attempt isn't wanted any more.
 */
export function reconnecting(
  open: (signal: AbortSignal) => Heartbeat | PromiseLike<Heartbeat>,
  options?: ReconnectingOptions,
): Reconnecting;

/** Times are in microseconds, `maxFrame` is in bytes, `instance` has 8 bytes. */
export interface Hello {
  interval: number;
  detectionTime: number;
  minInterval: number;
  maxMissed: number;
  maxFrame: number;
  instance: Uint8Array;
}

/** A nonce has 8 bytes. Only the first part of a message has its `length`. */
export type Frame =
  | { type: "data"; body: Uint8Array }
  | ({ type: "hello" } & Hello)
  | { type: "ping" | "pong"; nonce: Uint8Array }
  | { type: "goodbye"; code: number; detail: string }
  | { type: "alive" | "fin" | "reserved" }
  | { type: "part"; length?: number; body: Uint8Array };

/** A frame as bytes, its tag first. Throws a TypeError for one that is never sent. */
export function encode(frame: Frame): Uint8Array<ArrayBuffer>;

export interface DecodeOptions {
  /** Whether the peer's Hello has come. Before that nothing else is accepted. Default true. */
  greeted?: boolean;
  /** Default 8 MiB. */
  maxFrame?: number;
  /** The bytes that are still to come of a message in parts. Default 0. */
  missing?: number;
  /** Whether the peer has said Fin or goodbye. Default false. */
  finished?: boolean;
}

/** Reads one whole WebSocket message: anything. Throws a `ProtocolError`. */
export function decode(bytes: Uint8Array, options?: DecodeOptions): Frame;

/** How somebody broke the protocol. */
export class ProtocolError extends Error {
  constructor(kind: string, detail?: string);
  /** One of the names in docs/protocol.md, "What ends a connection". */
  kind: string;
}
