#!/usr/bin/env python3
"""A peer that was written from docs/protocol.md alone.

It shares no code with this project's library: whatever it knows stands on that
page. It keeps to the page in all that it does on the wire, unless it is told to
be `--rude`; what it reads from standard input and writes to standard output is
for tests.

    stranger.py --self-test docs/protocol.md
    stranger.py --differ                              judges the streams of standard input
    stranger.py --connect 127.0.0.1:PORT [times]      or --listen
    stranger.py --connect 127.0.0.1:PORT --rude flood

It reads lines `say HEX`, `say-much COUNT` (so many bytes), `hold` and `read-on` (stops
reading, and goes on), `finish` (no more messages), `goodbye CODE DETAIL`, and writes a
line for each event:

    listening PORT          waits for its peer
    connected FIELDS        the peer's Hello arrived
    data HEX, data COUNT*   a message arrived; a long one is told by its length
    asked, beat             answered a ping; had a ping answered
    along                   sent a ping of its own along with an answer
    alive, finished         the peer lives; sends no more messages
    missed COUNT            a ping had its whole timeout, and nothing came
    stalled SECONDS         it was asleep itself, for so long
    dead SECONDS            gave the peer up, after so long a silence
    given-up CODE DETAIL    the peer gave us up
    goodbye CODE DETAIL     the peer left
    eof, reset              the connection ended without one
    refused ERROR           the peer broke the protocol
    left                    said goodbye itself, and the peer took everything in
    unconfirmed             said goodbye itself; the peer lives, and didn't say that it did
    closed                  both sides had finished

The last nine are the end. `--rude` tells the peer's goodbye, if one comes, and how the
connection ended.
"""

import argparse
import collections
import ctypes
import itertools
import random
import secrets
import selectors
import socket
import struct
import sys
import time

DATA, HELLO, PING, PONG, GOODBYE, ALIVE, FIN, PART = range(8)
RESERVED = range(0x40, 0x80)
SILENT, WRITE_STALLED, PROTOCOL, RECEIVED = 2, 3, 4, 8
VERDICTS = range(2, 8)
MAX_DISCARDED = 65_536
MAX_PART = 65_536
MAX_VARINT = 5
MAX_DETAIL = 123
SHORTEST_SIGN = 0.02
MAGIC, VERSION = b"HBT\0", 1
MAX_CONTROL = 256
YEAR_US = 365 * 86_400 * 1_000_000
READ_AT_ONCE = 65_536


# What lies on the wire


class Refused(Exception):
    """The peer sent what the page doesn't allow."""


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def read_varint(body, at, bits):
    """The number at `at`, and where the next one begins."""
    number = 0
    for count in range((bits + 6) // 7):
        if at + count >= len(body):
            raise ValueError("cut in a varint")
        byte = body[at + count]
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if number >> bits:
                raise ValueError("a varint above its bits")
            return number, at + count + 1
    raise ValueError("a varint that is too long")


class Hello:
    FIELDS = (("interval", 64), ("detection", 64), ("min", 64), ("missed", 32), ("frame", 32))

    def __init__(self, interval, detection, min, missed, frame, instance):
        self.interval, self.detection, self.min, self.missed = interval, detection, min, missed
        self.frame, self.instance = frame, instance

    def encode(self):
        numbers = (varint(getattr(self, name)) for name, _ in self.FIELDS)
        return bytes([HELLO]) + MAGIC + bytes([VERSION]) + b"".join(numbers) + self.instance

    @classmethod
    def decode(cls, body):
        if len(body) < 5:
            raise Refused("Malformed tag=0x01")
        if body[:4] != MAGIC:
            raise Refused("WrongMagic")
        if body[4] != VERSION:
            raise Refused(f"WrongVersion version={body[4]}")
        at, numbers = 5, []
        try:
            for _, bits in cls.FIELDS:
                number, at = read_varint(body, at, bits)
                numbers.append(number)
        except ValueError:
            raise Refused("Malformed tag=0x01") from None
        instance = bytes(body[at : at + 8])
        if len(instance) < 8:
            raise Refused("Malformed tag=0x01")
        hello = cls(*numbers, instance)
        if not (
            1 <= hello.interval <= YEAR_US
            and 1 <= hello.min <= YEAR_US
            and 1 <= hello.missed <= 255
            and 1 <= hello.frame <= 0xFFFF_FFFE
            and hello.interval < hello.detection <= YEAR_US * (hello.missed + 1)
        ):
            raise Refused("ImpossibleHello")
        return hello

    def __str__(self):
        fields = " ".join(f"{name}={getattr(self, name)}" for name, _ in self.FIELDS)
        return f"{fields} instance={self.instance.hex()}"


class Goodbye:
    def __init__(self, code, detail=""):
        self.code, self.detail = code, detail

    def encode(self):
        detail = self.detail.encode()[:MAX_DETAIL].decode(errors="ignore").encode()
        return bytes([GOODBYE, self.code]) + varint(len(detail)) + detail

    @classmethod
    def decode(cls, body):
        try:
            length, at = read_varint(body, 1, 64)
            if not body or length > MAX_DETAIL or len(body) != at + length:
                raise ValueError("not as long as it says")
            return cls(body[0], bytes(body[at:]).decode())
        except ValueError:
            raise Refused("Malformed tag=0x04") from None

    def __str__(self):
        return f"{self.code} {self.detail}".rstrip()


def decode(frame):
    """A control frame or data without its length: its tag and what it says."""
    if not frame:
        raise Refused("EmptyFrame")
    tag, body = frame[0], frame[1:]
    if tag > PART and tag not in RESERVED:
        raise Refused(f"UnknownTag tag={tag:#04x}")
    if tag == HELLO:
        return tag, Hello.decode(body)
    if tag == GOODBYE:
        return tag, Goodbye.decode(body)
    size = {PING: 8, PONG: 8, ALIVE: 0, FIN: 0}.get(tag, len(body))
    if len(body) != size:
        raise Refused(f"Malformed tag={tag:#04x}")
    return tag, body


def with_length(frame):
    return struct.pack(">I", len(frame)) + frame


def message_frames(message):
    """What a message travels in: one frame, or several."""
    if len(message) <= MAX_PART:
        return [bytes([DATA]) + message]
    parts = [message[at : at + MAX_PART] for at in range(0, len(message), MAX_PART)]
    announced = [varint(len(message))] + [b""] * (len(parts) - 1)
    return [bytes([PART]) + length + part for length, part in zip(announced, parts)]


class Reader:
    """Cuts a byte stream into frames, and refuses as early as can be.

    A message in parts comes out as data, and each part before its last as an empty
    part.
    """

    def __init__(self, max_frame):
        self.max_frame = max_frame
        self.greeted = False
        # It said that no message follows.
        self.finished = False
        self.buffer = bytearray()
        # What a message lacks of which parts have come, and those.
        self.missing, self.parts = 0, []

    @property
    def in_message(self):
        """Whether the last bytes are of a message, though of no whole frame."""
        return len(self.buffer) > 4 and self.buffer[4] in (DATA, PART)

    @property
    def behind(self):
        """Whether something isn't whole."""
        return bool(self.buffer) or self.missing > 0

    def frames(self, chunk):
        self.buffer += chunk
        while len(self.buffer) >= 4:
            (length,) = struct.unpack_from(">I", self.buffer)
            if length == 0:
                raise Refused("EmptyFrame")
            if not self.greeted:
                self.check_length(length, MAX_CONTROL)
            max_data = min(self.max_frame, MAX_PART) + 1
            max_first = 1 + MAX_VARINT + MAX_PART
            whole = self.max_frame <= MAX_PART
            self.check_length(length, max(MAX_CONTROL, max_data) if whole else max_first)
            if len(self.buffer) == 4:
                return
            tag = self.buffer[4]
            if tag != HELLO and not self.greeted:
                raise Refused(f"HelloExpected tag={tag:#04x}")
            if tag > PART and tag not in RESERVED:
                raise Refused(f"UnknownTag tag={tag:#04x}")
            max_part = 1 + MAX_PART if self.missing else max_first
            self.check_length(length, {DATA: max_data, PART: max_part}.get(tag, MAX_CONTROL))
            if tag in (DATA, PART) and self.finished:
                raise Refused("AfterFin")
            if tag == DATA and self.missing:
                raise Refused("BrokenParts")
            skip = self.part_header(length) if tag == PART else 0
            if skip is None or len(self.buffer) < 4 + length:
                return
            frame = bytes(self.buffer[4 : 4 + length])
            del self.buffer[: 4 + length]
            if tag == PART:
                yield self.take_part(frame, skip)
            else:
                yield decode(frame)
            self.greeted = True
            self.finished = self.finished or tag in (FIN, GOODBYE)

    def part_header(self, length):
        """How many bytes a part has in front of those of its message, if that is known."""
        if self.missing:
            if not 0 < length - 1 <= self.missing:
                raise Refused("BrokenParts")
            return 1
        body = self.buffer[5 : 4 + length]
        try:
            announced, digits = read_varint(body, 0, 32)
        except ValueError as error:
            if str(error) == "cut in a varint" and len(body) < length - 1:
                return None
            raise Refused("Malformed tag=0x07") from None
        if announced <= MAX_PART:
            raise Refused("BrokenParts")
        self.check_length(announced, self.max_frame)
        if length - 1 == digits:
            raise Refused("BrokenParts")
        self.check_length(length, 1 + digits + MAX_PART)
        return 1 + digits

    def take_part(self, frame, skip):
        if not self.missing:
            self.missing, _ = read_varint(frame, 1, 32)
        self.parts.append(frame[skip:])
        self.missing -= len(frame) - skip
        if self.missing:
            return PART, b""
        message, self.parts = b"".join(self.parts), []
        return DATA, message

    @staticmethod
    def check_length(length, limit):
        if length > limit:
            raise Refused(f"FrameTooLong length={length} max={limit}")


# When to ping, and when to give up


class Monitor:
    """Whether the peer lives. It has no clock: each call is told the time."""

    def __init__(self, interval, timeout, max_missed, now):
        self.own_interval, self.timeout, self.max_missed = interval, timeout, max_missed
        self.peer = None
        self.last_life = now
        self.idle = random.random() * interval
        # Between a ping's being due and its having left.
        self.ping_waits = self.ping_taken = False
        self.left_at = None
        self.alive_waits = False
        self.alive_at = None
        self.nonces = collections.deque(maxlen=2 * max_missed)
        self.in_round = self.fresh = False
        self.missed = self.forgiven = 0

    @property
    def interval(self):
        return max(self.own_interval, self.peer_min)

    @property
    def peer_min(self):
        return self.peer.min / 1e6 if self.peer else 0.0

    @property
    def shortest(self):
        return max(0.75 * self.interval, self.peer_min)

    @property
    def sign_interval(self):
        """How often to show that we live while we can't answer in time."""
        if self.peer is None:
            return max(self.own_interval, SHORTEST_SIGN)
        patience = min(self.peer.interval, self.peer.detection - self.peer.interval)
        return max(min(self.own_interval, patience / 1e6), SHORTEST_SIGN)

    # What happened

    def arrival(self, now):
        """A sign of life: anything but a ping."""
        self.last_life = now
        self.forgiven = 0
        if self.in_round:
            self.in_round = self.ping_waits = False

    def hello(self, hello):
        self.peer = hello
        self.idle = min(max(self.idle, self.peer_min), self.interval)

    def pong(self, nonce):
        """Whether it answers a ping of ours; then those before it are answered too."""
        if nonce not in self.nonces:
            return False
        while self.nonces.popleft() != nonce:
            pass
        return True

    def asked(self, now):
        """The peer asks. Whether we ask along."""
        since = now - self.left_at if self.left_at is not None else float("inf")
        waits = self.ping_waits or self.ping_taken or (self.nonces and since < self.timeout)
        if self.in_round or waits or since < self.shortest:
            return False
        self.begin_round(now)
        return True

    def show_life(self, now):
        """We can't answer in time: because of what comes, or because we don't read."""
        if self.alive_at is None or now >= self.alive_at + self.sign_interval:
            self.alive_at = now
            self.alive_waits = True

    def read_on(self, now):
        """We didn't read for a while."""
        self.arrival(now)

    def stalled(self, now, heard):
        """We stood still. A fresh ping gets a whole timeout, unless that was so too often."""
        if heard:
            self.want_ping()
        elif self.forgiven < self.max_missed:
            self.forgiven += 1
            if not self.in_round:
                self.begin_round(now)
            self.want_ping()
            self.fresh = True
            self.give_up_at = max(self.give_up_at, now + self.timeout)
            self.step_at = self.give_up_at

    # What is due

    def wake_up(self):
        return self.step_at if self.in_round else self.last_life + self.idle

    def turn(self, now):
        if not self.in_round:
            if now >= self.last_life + self.idle:
                self.begin_round(self.last_life + self.idle)
        elif now >= self.give_up_at:
            return "dead"
        elif now >= self.step_at:
            self.missed += 1
            self.want_ping()
            return "missed"
        return None

    def begin_round(self, due):
        self.in_round, self.missed = True, 0
        # The first interval of all may be as good as nothing, and asking along comes
        # early.
        self.base = max(due, self.last_life + self.shortest)
        self.step_at = self.give_up_at = self.base + self.max_missed * self.timeout
        self.want_ping()

    def want_ping(self):
        if not self.ping_taken:
            self.ping_waits = True
        self.idle = random.uniform(self.shortest, self.interval)
        if self.in_round:
            self.step_at = self.give_up_at

    def take_ping(self):
        self.ping_waits, self.ping_taken = False, True
        self.nonces.append(secrets.token_bytes(8))
        return self.nonces[-1]

    def ping_left(self, now):
        """From here on it is timed."""
        self.ping_taken = False
        self.left_at = now
        if self.in_round:
            if self.fresh:
                self.give_up_at = max(self.give_up_at, now + self.timeout)
            self.step_at = min(max(self.base, now) + self.timeout, self.give_up_at)
        self.fresh = False


# A connection


class Peer:
    def __init__(self, stream, options):
        self.stream = stream
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = options.timeout
        self.farewell = options.timeout * options.missed
        self.linger = options.linger
        self.reader = Reader(options.max_frame)
        self.monitor = Monitor(options.interval, options.timeout, options.missed, time.monotonic())
        times = (options.interval, options.interval + self.farewell, options.min)
        numbers = (*(round(1e6 * t) for t in times), options.missed, options.max_frame)
        self.instance = secrets.token_bytes(8)
        hello = Hello(*numbers, self.instance)
        # One frame that was begun, and what comes after it. Messages, and a Fin or a
        # Goodbye behind them, wait in `queue`.
        self.writing = bytearray(with_length(hello.encode()))
        self.pong = None
        self.queue = collections.deque()
        self.sent = set()
        self.holds = False
        # What was said about messages: whether the peer finished; until when it has to
        # confirm that we leave, and whether it did; how it left.
        self.peer_finished = False
        self.leaves_until = None
        self.confirmed = False
        self.peer_left = None
        self.input = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(stream, selectors.EVENT_READ, self.read)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.command)

    def run(self):
        """Until the connection is over. Says how it ended."""
        ended = None
        while not ended:
            try:
                self.write()
                ended = self.done() or self.wait() or self.judge()
            except Refused as error:
                self.give_up(PROTOCOL, str(error))
                ended = f"refused {error}"
            except (ConnectionResetError, BrokenPipeError):
                ended = self.last_words() or self.done() or self.cut_off("reset")
        return ended

    def done(self):
        """Whether both sides have said all, and the other has that."""
        if self.leaves_until is not None and self.confirmed and not self.owes_answer():
            self.part()
            return "left"
        if self.peer_finished and FIN in self.sent:
            self.part()
            return "closed"
        return None

    def owes_answer(self):
        answered = RECEIVED in self.sent or self.peer_left is None
        return not answered and self.peer_left.code != RECEIVED

    def part(self):
        """Ends our direction, and reads to the peer's end, for so long and so much."""
        until = time.monotonic() + self.farewell
        left = MAX_DISCARDED
        try:
            while self.writing:
                self.stream.settimeout(max(0.001, until - time.monotonic()))
                del self.writing[: self.stream.send(self.writing)]
            self.stream.shutdown(socket.SHUT_WR)
            while left > 0:
                self.stream.settimeout(max(0.001, until - time.monotonic()))
                chunk = self.stream.recv(min(left, READ_AT_ONCE))
                if not chunk:
                    return
                left -= len(chunk)
        except OSError:
            pass
        self.reset()

    def cut_off(self, how):
        """The connection ended. Behind a goodbye of the peer's that is no death."""
        if self.confirmed:
            return "left"
        return f"goodbye {self.peer_left}" if self.peer_left else how

    def last_words(self):
        """What had arrived before the connection ended."""
        ended = None
        try:
            while not ended:
                chunk = self.stream.recv(READ_AT_ONCE)
                if not chunk:
                    return None
                ended = self.take_in(chunk)
        except (OSError, Refused):
            pass
        return ended

    def give_up(self, code, detail):
        """The peer is told, as far as the socket takes it at once; then a reset."""
        self.writing += with_length(Goodbye(code, detail).encode())
        try:
            self.stream.send(self.writing)
        except OSError:
            pass
        self.reset()

    def reset(self):
        """When it is closed."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def wait(self):
        """Sleeps until there is something to do. A peer that is heard isn't judged."""
        if self.holds:
            wake_up = (self.monitor.alive_at or 0.0) + self.monitor.sign_interval
        else:
            wake_up = self.monitor.wake_up()
        if self.leaves_until is not None:
            wake_up = min(wake_up, self.leaves_until)
        events = 0 if self.holds else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if self.writing else 0
        self.watch(events)
        ready = self.selector.select(max(0.0, wake_up - time.monotonic()))
        late = time.monotonic() - wake_up
        heard = False
        for key, events in ready:
            if events & selectors.EVENT_READ:
                heard |= key.fileobj is self.stream
                ended = key.data()
                if ended:
                    return ended
        if late > self.timeout and not self.holds:
            tell(f"stalled {late:.3f}")
            self.monitor.stalled(time.monotonic(), heard)
        return None

    def watch(self, events):
        if self.stream in self.selector.get_map():
            self.selector.unregister(self.stream)
        if events:
            self.selector.register(self.stream, events, self.read)

    def read(self):
        try:
            chunk = self.stream.recv(READ_AT_ONCE)
        except BlockingIOError:
            return None
        if not chunk:
            return self.cut_off("eof")
        ended = self.take_in(chunk)
        if not ended and (self.reader.behind or len(chunk) == READ_AT_ONCE):
            self.monitor.show_life(time.monotonic())
        return ended

    def take_in(self, chunk):
        now = time.monotonic()
        for tag, what in self.reader.frames(chunk):
            if tag == GOODBYE:
                ended = self.goodbye(what)
                if ended:
                    return ended
            if tag == HELLO:
                if what.instance == self.instance:
                    raise Refused("Loop")
                self.monitor.hello(what)
            if tag != PING:
                self.monitor.arrival(now)
            self.take(tag, what, now)
            ended = self.done()
            if ended:
                return ended
        if self.reader.in_message:
            self.monitor.arrival(now)
        return None

    def goodbye(self, what):
        """Gave us up, leaves, or confirms that we do. Whether that is the end."""
        if what.code in VERDICTS:
            return f"given-up {what}"
        if self.leaves_until is None:
            self.queue.clear()
            if what.code != RECEIVED:
                self.writing += with_length(Goodbye(RECEIVED).encode())
            self.part()
            return f"goodbye {what}"
        if what.code == RECEIVED and GOODBYE in self.sent:
            self.confirmed = True
        elif self.peer_left is None:
            self.peer_left = what
            if what.code != RECEIVED:
                self.queue.append((RECEIVED, Goodbye(RECEIVED).encode()))
        return None

    def take(self, tag, what, now):
        if tag == HELLO:
            tell(f"connected {what}")
        elif tag == DATA:
            tell(f"data {what.hex()}" if len(what) <= MAX_PART else f"data {len(what)}*")
        elif tag == PING:
            self.pong = what
            tell("asked")
            if self.monitor.asked(now):
                tell("along")
        elif tag == PONG:
            if self.monitor.pong(what):
                tell("beat")
        elif tag == ALIVE:
            tell("alive")
        elif tag == FIN and not self.peer_finished:
            self.peer_finished = True
            tell("finished")

    def judge(self):
        now = time.monotonic()
        if self.leaves_until is not None and now >= self.leaves_until:
            self.reset()
            return self.cut_off("unconfirmed")
        if self.holds:
            self.monitor.show_life(now)
            return None
        due = self.monitor.turn(now)
        if due == "missed":
            tell(f"missed {self.monitor.missed}")
        if due != "dead":
            return None
        silence = now - self.monitor.last_life
        self.give_up(SILENT, f"silent for {silence:.1f} s")
        return self.cut_off(f"dead {silence:.3f}")

    def write(self):
        """As much as the socket takes, the frames that can't wait first."""
        while True:
            if not self.writing:
                if self.monitor.ping_taken:
                    self.monitor.ping_left(time.monotonic())
                self.writing += self.next_frame()
            if not self.writing:
                return
            try:
                del self.writing[: self.stream.send(self.writing)]
            except BlockingIOError:
                return

    def next_frame(self):
        if self.pong is not None:
            frame, self.pong = bytes([PONG]) + self.pong, None
        elif self.monitor.ping_waits:
            frame = bytes([PING]) + self.monitor.take_ping()
        elif self.monitor.alive_waits:
            frame, self.monitor.alive_waits = bytes([ALIVE]), False
        elif self.queue:
            what, frame = self.queue.popleft()
            self.sent.add(what)
        else:
            return b""
        return with_length(frame)

    def command(self):
        chunk = sys.stdin.buffer.raw.read(READ_AT_ONCE)
        if not chunk:
            self.selector.unregister(sys.stdin)
        *lines, self.input = (self.input + chunk).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "say":
                self.say(bytes.fromhex(rest))
            elif word == "say-much":
                self.say(b"m" * int(rest))
            elif word == "hold":
                self.holds = True
            elif word == "read-on":
                self.read_on()
            elif word == "finish":
                self.queue.append((FIN, bytes([FIN])))
            elif word == "goodbye":
                code, _, detail = rest.partition(" ")
                self.leave(Goodbye(int(code or 0), detail))
            else:
                raise SystemExit(f"don't know {line!r}")

    def say(self, message):
        if self.sent & {FIN, GOODBYE} or any(what != DATA for what, _ in self.queue):
            raise SystemExit("no message follows")
        self.queue.extend((DATA, frame) for frame in message_frames(message))

    def read_on(self):
        self.holds = False
        self.monitor.read_on(time.monotonic())

    def leave(self, goodbye):
        self.leaves_until = time.monotonic() + self.linger
        self.queue.append((GOODBYE, goodbye.encode()))
        # A side that leaves still reads.
        if self.holds:
            self.read_on()


def tell(line):
    print(line, flush=True)


# What no peer does

INSTANCE = b"stranger"
GOOD_HELLO = Hello(5_000_000, 14_000_000, 1_000_000, 3, 8 << 20, INSTANCE)
HELLO_FRAME = with_length(GOOD_HELLO.encode())
BAD_HELLO = with_length(Hello(5, 5, 1, 3, 1, INSTANCE).encode())
FIRST_PART = with_length(bytes([PART]) + varint(MAX_PART + 1) + bytes(MAX_PART))

RUDE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "empty": b"\0\0\0\0",
    "ping-first": with_length(bytes([PING]) + bytes(8)),
    "pong-first": with_length(bytes([PONG]) + bytes(8)),
    "goodbye-first": with_length(Goodbye(0).encode()),
    "data-first": with_length(bytes([DATA]) + b"hi"),
    "bad-magic": with_length(GOOD_HELLO.encode().replace(MAGIC, b"HBX\0")),
    "bad-version": with_length(GOOD_HELLO.encode().replace(MAGIC + b"\1", MAGIC + b"\2")),
    "truncated-hello": with_length(GOOD_HELLO.encode()[:-1]),
    "impossible-hello": BAD_HELLO,
    "unknown-tag": HELLO_FRAME + with_length(b"\10"),
    "oversized": HELLO_FRAME + b"\xff\xff\xff\xff\0",
    "oversized-ping": HELLO_FRAME + b"\0\0\1\1" + bytes([PING]),
    "short-ping": HELLO_FRAME + with_length(bytes([PING]) + bytes(7)),
    "second-hello": HELLO_FRAME + BAD_HELLO,
    "short-goodbye": HELLO_FRAME + with_length(bytes([GOODBYE, 0])),
    "goodbye-without-text": HELLO_FRAME + with_length(bytes([GOODBYE, 0, 2, 0xFF, 0xFE])),
    "long-alive": HELLO_FRAME + with_length(bytes([ALIVE, 0])),
    "long-data": HELLO_FRAME + struct.pack(">I", MAX_PART + 2) + bytes([DATA]),
    "short-parts": HELLO_FRAME + with_length(bytes([PART]) + varint(MAX_PART) + b"m"),
    "large-parts": HELLO_FRAME + with_length(bytes([PART]) + varint((8 << 20) + 1) + b"m"),
    "empty-part": HELLO_FRAME + FIRST_PART + with_length(bytes([PART])),
    "data-among-parts": HELLO_FRAME + FIRST_PART + with_length(bytes([DATA])),
    "data-after-fin": HELLO_FRAME + with_length(bytes([FIN])) + with_length(bytes([DATA])),
    "hasty-hello": with_length(Hello(9_000, 99_000, 1_000, 10, 1, INSTANCE).encode()),
    "slow-hello": with_length(Hello(YEAR_US, 2 * YEAR_US, YEAR_US, 1, 1, INSTANCE).encode()),
}


def rude(stream, how):
    """Sends what isn't allowed, and waits for the other to close. Says what it said."""
    reader = Reader(8 << 20)
    end = "eof"
    try:
        if how == "flood":
            stream.sendall(HELLO_FRAME)
            for number in itertools.count():
                stream.sendall(with_length(bytes([PING]) + number.to_bytes(8, "big")))
        stream.sendall(RUDE[how])
    except (ConnectionResetError, BrokenPipeError):
        end = "reset"
    try:
        while chunk := stream.recv(READ_AT_ONCE):
            for tag, what in reader.frames(chunk):
                if tag == GOODBYE:
                    tell(f"given-up {what}")
    except (ConnectionResetError, BrokenPipeError):
        end = "reset"
    return end


# The page's test vectors


def self_test(page):
    """Every vector of the page, decoded; and encoded where a sender writes it."""
    blocks = {}
    kind = None
    for line in open(page, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("```"):
            kind = line[3:] or None
        elif kind and kind.startswith("vectors"):
            blocks.setdefault(kind, []).append([part.strip() for part in line.split("|")])
    checks = {
        "vectors": check_written,
        "vectors-read": check_read,
        "vectors-refused": check_refused,
        "vectors-stream": lambda data, meaning: check_stream(data, meaning, 16),
        "vectors-parts": lambda data, meaning: check_stream(data, meaning, 100_000),
    }
    if blocks.keys() != checks.keys():
        raise SystemExit(f"{page} has these blocks of vectors: {sorted(blocks)}")
    failed = 0
    for kind, check in checks.items():
        for name, data, meaning in blocks[kind]:
            try:
                found = check(read_bytes(data), meaning)
            except Refused as error:
                found = str(error)
            if found != meaning:
                failed += 1
                tell(f"{kind}: {name}: {found!r} instead of {meaning!r}")
        tell(f"{kind} {len(blocks[kind])}")
    if failed:
        raise SystemExit(f"{failed} vectors aren't understood")


# Streams that another implementation reads too


def differ():
    """Each line is a largest message and the pieces of a stream, in hexadecimal.

    For each it writes what the application is told, and the pings of each piece.
    """
    for line in sys.stdin:
        max_frame, *pieces = line.split(" ")
        told, pings = [], []
        try:
            reader, limit = Reader(int(max_frame)), Limit()
            for piece in pieces:
                pings.append([])
                if read_piece(reader, limit, bytes.fromhex(piece), told, pings[-1]):
                    break
        except Refused as error:
            told.append(str(error))
        print("; ".join(told), "|", " ".join(",".join(piece) or "-" for piece in pings))


class Limit:
    """How many pings are accepted of a peer at once, when the connection has begun."""

    def __init__(self):
        self.pings = self.missed = 0

    def admit(self):
        self.pings += 1
        if self.pings > 2 * self.missed * 2:
            raise Refused("ping flood")


def read_piece(reader, limit, piece, told, pings):
    """Whether the connection has ended."""
    for tag, what in reader.frames(piece):
        if tag == HELLO:
            if refuses(what):
                raise Refused("Refused")
            limit.missed = max(limit.missed, what.missed)
        if tag == PING:
            limit.admit()
            pings.append(what.hex())
        if tag in (DATA, GOODBYE) or tag == FIN and "fin" not in told:
            told.append(describe(tag, what))
        if tag == GOODBYE:
            return True
    return False


def refuses(hello):
    """With an interval of 5 s and three timeouts of 3 s, stretched up to four times."""
    return hello.detection < 100_000 or max(5_000_000, hello.min) + 9_000_000 > 4 * 14_000_000


def read_bytes(words):
    """`61*3` stands for `61 61 61`."""
    runs = (word.partition("*") for word in words.split())
    return b"".join(bytes.fromhex(byte) * int(count or 1) for byte, _, count in runs)


def describe(tag, what):
    names = {PING: "ping", PONG: "pong", ALIVE: "alive", FIN: "fin", PART: "part"}
    if tag == HELLO:
        return f"hello {what}"
    if tag == DATA:
        return f"data {data_words(what)}".rstrip()
    if tag == GOODBYE:
        detail = what.detail.encode().hex()
        return f"goodbye code={what.code}" + (f" detail={detail}" if detail else "")
    if tag in (PING, PONG):
        return f"{names[tag]} nonce={what.hex()}"
    return names.get(tag, "reserved")


def data_words(message):
    if len(message) < 100:
        return message.hex()
    runs = ((byte, len(list(run))) for byte, run in itertools.groupby(message))
    return " ".join(f"{byte:02x}" + (f"*{count}" if count > 1 else "") for byte, count in runs)


def encode(tag, what):
    return what.encode() if tag in (HELLO, GOODBYE) else bytes([tag]) + what


def check_written(data, meaning):
    found = check_read(data, meaning)
    return found if encode(*decode(data)) == data else f"{encode(*decode(data)).hex()} written"


def check_read(data, meaning):
    return describe(*decode(data))


def check_refused(data, meaning):
    return f"understood as {check_read(data, meaning)}"


def check_stream(data, meaning, max_frame):
    # In one piece, and in such as cut everything that is short.
    size = 1 if len(data) < 1000 else 7
    for chunks in ([data], [data[n : n + size] for n in range(0, len(data), size)]):
        reader, found = Reader(max_frame), []
        try:
            for chunk in chunks:
                for frame in reader.frames(chunk):
                    found.append(describe(*frame))
        except Refused as error:
            found.append(str(error))
        if "; ".join(found) != meaning:
            break
    return "; ".join(found)


def end_with_parent():
    """A test that is killed can't clean up, and a stopped process can't find out."""
    if sys.platform == "linux":
        pr_set_pdeathsig, sigkill = 1, 9
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


def main():
    parser = argparse.ArgumentParser(description="a peer written from the page alone")
    parser.add_argument("--self-test", metavar="PAGE")
    parser.add_argument("--differ", action="store_true")
    parser.add_argument("--connect", metavar="HOST:PORT")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds")
    parser.add_argument("--missed", type=int, default=3)
    parser.add_argument("--min", type=float, default=1.0, help="seconds")
    parser.add_argument("--linger", type=float, default=30.0, help="seconds")
    parser.add_argument("--max-frame", type=int, default=8 << 20, help="bytes")
    parser.add_argument("--rude", choices=["flood", *RUDE])
    options = parser.parse_args()
    if options.self_test:
        return self_test(options.self_test)
    end_with_parent()
    if options.differ:
        return differ()
    if options.connect:
        host, port = options.connect.rsplit(":", 1)
        stream = socket.create_connection((host, int(port)))
    elif options.listen:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            tell(f"listening {listener.getsockname()[1]}")
            stream, _ = listener.accept()
    else:
        parser.error("--self-test, --connect or --listen")
    with stream:
        tell(rude(stream, options.rude) if options.rude else Peer(stream, options).run())


if __name__ == "__main__":
    main()
