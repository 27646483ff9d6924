// The other end of `OrdinaryFrames`: answers beats that travel as ordinary
// messages. A beat is binary: "?" and 8 bytes ask, "!" and the same 8 answer.
// The browser itself answers those of `ControlFrames`. That is the least that
// answers; ../heartbeat-js/heartbeat.js also finds out when the server is dead.
function answerBeats(socket) {
  socket.binaryType = "arraybuffer";
  socket.addEventListener("message", ({ data }) => {
    if (data instanceof ArrayBuffer) {
      const beat = new Uint8Array(data);
      if (beat.length === 9 && beat[0] === 0x3f) {
        beat[0] = 0x21;
        socket.send(beat);
      }
    }
  });
}
