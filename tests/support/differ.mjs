// `heartbeat.js` as a judge of byte streams. Each line is a largest message and the pieces
// of a stream, in hexadecimal; for each, this writes what an application would be told.
// Only whole frames are judged, as in a WebSocket: "..." is the beginning of another.

import { createInterface } from "node:readline";

import { decode, ProtocolError } from "../../examples/heartbeat-js/heartbeat.js";

for await (const line of createInterface({ input: process.stdin })) {
  const [maxFrame, ...pieces] = line.split(" ");
  const told = [];
  try {
    judge(Buffer.from(pieces.join(""), "hex"), Number(maxFrame), told);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    told.push(error.message);
  }
  console.log(told.join("; "));
}

function judge(stream, maxFrame, told) {
  let [greeted, finished, missing, parts] = [false, false, 0, []];
  let [pings, missed] = [0, 0];
  for (let at = 0; at < stream.length; ) {
    const begin = at + 4;
    at = begin <= stream.length ? begin + stream.readUInt32BE(at) : Infinity;
    if (at > stream.length) return told.push("...");
    const frame = decode(stream.subarray(begin, at), { greeted, maxFrame, missing, finished });
    switch (frame.type) {
      case "hello":
        if (refuses(frame)) return told.push("Refused");
        missed = Math.max(missed, frame.maxMissed);
        break;
      // A page has no such limit: it trusts the server that it came from.
      case "ping":
        if (++pings > 2 * missed * 2) return told.push("ping flood");
        break;
      case "data":
        told.push(words(frame.body));
        break;
      case "part":
        missing = (frame.length ?? missing) - frame.body.length;
        parts.push(frame.body);
        if (missing === 0) told.push(words(Buffer.concat(parts.splice(0))));
        break;
      case "fin":
        if (!finished) told.push("fin");
        break;
      case "goodbye": {
        const detail = Buffer.from(frame.detail).toString("hex");
        return told.push(`goodbye code=${frame.code}${detail && ` detail=${detail}`}`);
      }
    }
    greeted = true;
    finished ||= frame.type === "fin";
  }
}

/** With an interval of 5 s and three timeouts of 3 s, stretched up to four times. */
function refuses({ detectionTime, minInterval }) {
  return detectionTime < 100_000 || Math.max(5_000_000, minInterval) + 9_000_000 > 56_000_000;
}

/** Above 99 bytes `61*3` stands for `61 61 61`. */
function words(message) {
  if (message.length < 100) return `data ${Buffer.from(message).toString("hex")}`.trimEnd();
  const runs = [];
  for (const byte of message) {
    const last = runs.at(-1);
    if (last?.byte === byte) last.count += 1;
    else runs.push({ byte, count: 1 });
  }
  const digits = (byte) => byte.toString(16).padStart(2, "0");
  const told = runs.map(({ byte, count }) => digits(byte) + (count > 1 ? `*${count}` : ""));
  return `data ${told.join(" ")}`;
}
