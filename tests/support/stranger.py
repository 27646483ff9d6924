#!/usr/bin/env python3
"""A peer that was written from docs/protocol.md alone.

It shares no code with this project's library: whatever it knows stands on that
page. It keeps to the page in all that it does on the wire, unless it is told to
be `--rude`; what it reads from standard input and writes to standard output is
for tests.

    stranger.py --self-test docs/protocol.md
    stranger.py --connect 127.0.0.1:PORT [times]      or --listen
    stranger.py --connect 127.0.0.1:PORT --rude flood

It reads lines `say HEX` and `goodbye`, and writes a line for each event:

    listening PORT          waits for its peer
    connected FIELDS        the peer's Hello arrived
    data HEX                a message arrived
    asked, beat             answered a ping; had a ping answered
    missed COUNT            a ping had its whole timeout, and nothing came
    stalled SECONDS         it was asleep itself, for so long
    dead SECONDS            gave the peer up, after so long without a byte
    goodbye                 the peer said it
    eof, reset              the connection ended without one
    refused ERROR           the peer broke the protocol
    left                    said goodbye itself, and saw the connection end

The last six are the end.
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

DATA, HELLO, PING, PONG, GOODBYE = range(5)
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
    FIELDS = (("interval", 64), ("detection", 64), ("min", 64), ("missed", 32))

    def __init__(self, interval, detection, min, missed):
        self.interval, self.detection, self.min, self.missed = interval, detection, min, missed

    def encode(self):
        numbers = (varint(getattr(self, name)) for name, _ in self.FIELDS)
        return bytes([HELLO]) + MAGIC + bytes([VERSION]) + b"".join(numbers)

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
        hello = cls(*numbers)
        if not (
            1 <= hello.interval <= YEAR_US
            and 1 <= hello.min <= YEAR_US
            and 1 <= hello.missed <= 255
            and hello.interval < hello.detection <= YEAR_US * (hello.missed + 1)
        ):
            raise Refused("ImpossibleHello")
        return hello

    def __str__(self):
        return " ".join(f"{name}={getattr(self, name)}" for name, _ in self.FIELDS)


def decode(frame):
    """A frame without its length: its tag and what it says."""
    if not frame:
        raise Refused("EmptyFrame")
    tag, body = frame[0], frame[1:]
    if tag > GOODBYE:
        raise Refused(f"UnknownTag tag={tag:#04x}")
    if tag == HELLO:
        return tag, Hello.decode(body)
    size = {PING: 8, PONG: 8, GOODBYE: 0}.get(tag, len(body))
    if len(body) != size:
        raise Refused(f"Malformed tag={tag:#04x}")
    return tag, body


def with_length(frame):
    return struct.pack(">I", len(frame)) + frame


class Reader:
    """Cuts a byte stream into frames, and refuses as early as can be."""

    def __init__(self, max_frame):
        self.max_data = max_frame + 1
        self.greeted = False
        self.buffer = bytearray()

    def frames(self, chunk):
        self.buffer += chunk
        while len(self.buffer) >= 4:
            (length,) = struct.unpack_from(">I", self.buffer)
            if length == 0:
                raise Refused("EmptyFrame")
            if not self.greeted:
                self.check_length(length, MAX_CONTROL)
            self.check_length(length, max(MAX_CONTROL, self.max_data))
            if len(self.buffer) == 4:
                return
            tag = self.buffer[4]
            if tag != HELLO and not self.greeted:
                raise Refused(f"HelloExpected tag={tag:#04x}")
            if tag > GOODBYE:
                raise Refused(f"UnknownTag tag={tag:#04x}")
            self.check_length(length, self.max_data if tag == DATA else MAX_CONTROL)
            if len(self.buffer) < 4 + length:
                return
            frame = bytes(self.buffer[4 : 4 + length])
            del self.buffer[: 4 + length]
            yield decode(frame)
            self.greeted = True

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
    def outward(self):
        """How often to ping only to show that we live."""
        if self.peer is None:
            return self.interval
        patience = min(self.peer.interval, self.peer.detection - self.peer.interval)
        return max(min(self.interval, patience / 1e6), self.peer_min)

    # What happened

    def alive(self, now):
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

    def backlog(self, now):
        """The peer is heard, and is busy sending: it can't hear of us by our answers."""
        if not self.in_round and (self.left_at is None or now >= self.left_at + self.outward):
            self.want_ping()

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
        # The first interval of all may be as good as nothing.
        base = max(due, self.last_life + self.shortest)
        self.step_at = self.give_up_at = base + self.max_missed * self.timeout
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
            self.step_at = min(now + self.timeout, self.give_up_at)
        self.fresh = False


# A connection


class Peer:
    def __init__(self, stream, options):
        self.stream = stream
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = options.timeout
        self.farewell = options.timeout * options.missed
        self.reader = Reader(options.max_frame)
        self.monitor = Monitor(options.interval, options.timeout, options.missed, time.monotonic())
        times = (options.interval, options.interval + self.farewell, options.min)
        hello = Hello(*(round(1e6 * t) for t in times), options.missed)
        # One frame that was begun, and what comes after it.
        self.writing = bytearray(with_length(hello.encode()))
        self.pong = None
        self.data = collections.deque()
        self.leaving = False
        self.left_at = None
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
                ended = self.wait() or self.judge()
            except Refused as error:
                ended = f"refused {error}"
            except (ConnectionResetError, BrokenPipeError):
                ended = "reset"
        return ended if self.left_at is None else "left"

    def wait(self):
        """Sleeps until there is something to do. Whoever is heard isn't judged."""
        leaving = self.left_at is not None
        wake_up = self.left_at + self.farewell if leaving else self.monitor.wake_up()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.writing else 0)
        self.selector.modify(self.stream, events, self.read)
        ready = self.selector.select(max(0.0, wake_up - time.monotonic()))
        late = time.monotonic() - wake_up
        heard = False
        for key, events in ready:
            if events & selectors.EVENT_READ:
                heard |= key.fileobj is self.stream
                ended = key.data()
                if ended:
                    return ended
        if late > self.timeout and not leaving:
            tell(f"stalled {late:.3f}")
            self.monitor.stalled(time.monotonic(), heard)
        return None

    def read(self):
        try:
            chunk = self.stream.recv(READ_AT_ONCE)
        except BlockingIOError:
            return None
        if not chunk:
            return "eof"
        if self.left_at is not None:
            return None
        now = time.monotonic()
        self.monitor.alive(now)
        for tag, what in self.reader.frames(chunk):
            if tag == GOODBYE:
                return "goodbye"
            self.take(tag, what)
        if self.reader.buffer or len(chunk) == READ_AT_ONCE:
            self.monitor.backlog(now)
        return None

    def take(self, tag, what):
        if tag == HELLO:
            self.monitor.hello(what)
            tell(f"connected {what}")
        elif tag == DATA:
            tell(f"data {what.hex()}")
        elif tag == PING:
            self.pong = what
            tell("asked")
        elif self.monitor.pong(what):
            tell("beat")

    def judge(self):
        now = time.monotonic()
        if self.left_at is not None:
            return "left" if now >= self.left_at + self.farewell else None
        due = self.monitor.turn(now)
        if due == "missed":
            tell(f"missed {self.monitor.missed}")
        return f"dead {now - self.monitor.last_life:.3f}" if due == "dead" else None

    def write(self):
        """As much as the socket takes, the frames that can't wait first."""
        while self.left_at is None:
            if not self.writing:
                if self.monitor.ping_taken:
                    self.monitor.ping_left(time.monotonic())
                self.writing += self.next_frame()
            if not self.writing:
                if self.leaving == "said":
                    self.left_at = time.monotonic()
                    self.stream.shutdown(socket.SHUT_WR)
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
        elif self.data:
            frame = bytes([DATA]) + self.data.popleft()
        elif self.leaving == "wanted":
            frame, self.leaving = bytes([GOODBYE]), "said"
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
                self.data.append(bytes.fromhex(rest))
            elif word == "goodbye":
                self.leaving = "wanted"
            else:
                raise SystemExit(f"don't know {line!r}")


def tell(line):
    print(line, flush=True)


# What no peer does

GOOD_HELLO = Hello(5_000_000, 14_000_000, 1_000_000, 3)
HELLO_FRAME = with_length(GOOD_HELLO.encode())

RUDE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "empty": b"\0\0\0\0",
    "ping-first": with_length(bytes([PING]) + bytes(8)),
    "pong-first": with_length(bytes([PONG]) + bytes(8)),
    "goodbye-first": with_length(bytes([GOODBYE])),
    "data-first": with_length(bytes([DATA]) + b"hi"),
    "bad-magic": with_length(GOOD_HELLO.encode().replace(MAGIC, b"HBX\0")),
    "bad-version": with_length(GOOD_HELLO.encode().replace(MAGIC + b"\1", MAGIC + b"\2")),
    "truncated-hello": with_length(GOOD_HELLO.encode()[:-1]),
    "impossible-hello": with_length(Hello(5, 5, 1, 3).encode()),
    "unknown-tag": HELLO_FRAME + with_length(b"\5"),
    "oversized": HELLO_FRAME + b"\xff\xff\xff\xff\0",
    "oversized-ping": HELLO_FRAME + b"\0\0\1\1" + bytes([PING]),
    "short-ping": HELLO_FRAME + with_length(bytes([PING]) + bytes(7)),
    "second-hello": HELLO_FRAME + with_length(Hello(5, 5, 1, 3).encode()),
    "long-goodbye": HELLO_FRAME + with_length(bytes([GOODBYE, 0])),
}


def rude(stream, how):
    """Sends what isn't allowed, and waits for the other to close."""
    try:
        if how == "flood":
            stream.sendall(HELLO_FRAME)
            for number in itertools.count():
                stream.sendall(with_length(bytes([PING]) + number.to_bytes(8, "big")))
        stream.sendall(RUDE[how])
        while stream.recv(READ_AT_ONCE):
            pass
        return "eof"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


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
        "vectors-stream": check_stream,
    }
    if blocks.keys() != checks.keys():
        raise SystemExit(f"{page} has these blocks of vectors: {sorted(blocks)}")
    failed = 0
    for kind, check in checks.items():
        for name, data, meaning in blocks[kind]:
            try:
                found = check(bytes.fromhex(data), meaning)
            except Refused as error:
                found = str(error)
            if found != meaning:
                failed += 1
                tell(f"{kind}: {name}: {found!r} instead of {meaning!r}")
        tell(f"{kind} {len(blocks[kind])}")
    if failed:
        raise SystemExit(f"{failed} vectors aren't understood")


def describe(tag, what):
    if tag == HELLO:
        return f"hello {what}"
    if tag == DATA:
        return f"data {what.hex()}".rstrip()
    return "goodbye" if tag == GOODBYE else f"{('ping', 'pong')[tag - PING]} nonce={what.hex()}"


def encode(tag, what):
    return what.encode() if tag == HELLO else bytes([tag]) + what


def check_written(data, meaning):
    found = check_read(data, meaning)
    return found if encode(*decode(data)) == data else f"{encode(*decode(data)).hex()} written"


def check_read(data, meaning):
    return describe(*decode(data))


def check_refused(data, meaning):
    return f"understood as {check_read(data, meaning)}"


def check_stream(data, meaning):
    for chunks in ([data], [data[n : n + 1] for n in range(len(data))]):
        reader, found = Reader(16), []
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
    parser.add_argument("--connect", metavar="HOST:PORT")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds")
    parser.add_argument("--missed", type=int, default=3)
    parser.add_argument("--min", type=float, default=1.0, help="seconds")
    parser.add_argument("--max-frame", type=int, default=8 << 20, help="bytes")
    parser.add_argument("--rude", choices=["flood", *RUDE])
    options = parser.parse_args()
    if options.self_test:
        return self_test(options.self_test)
    end_with_parent()
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
