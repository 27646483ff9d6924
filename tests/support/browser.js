// What a browser does in tests/browsers/websocket.rs: it sends back what it gets, but
// for these words. `location.search` is handed on.
const socket = new WebSocket(`ws://${location.host}/socket`);
const ordinary = location.search === "?ordinary";
if (ordinary) answerBeats(socket);
socket.binaryType = "arraybuffer";
socket.onopen = () => socket.send("hello from the page");
socket.onmessage = ({ data }) => {
  if (data === "close") socket.close(1000, "enough");
  else if (data === "lunch") socket.close(4064, "at noon");
  else if (data === "leave") location = "/elsewhere";
  else if (data === "hang") for (;;);
  else if (!ordinary || typeof data === "string") socket.send(data);
};
// Comes as a request, since the socket is closed.
socket.onclose = ({ code, wasClean }) => fetch(`/closed/${code}/${wasClean}`);
