const log = (text) => document.body.append(text, document.createElement("br"));
const socket = new WebSocket(`ws://${location.host}/socket`);
answerBeats(socket);
socket.onopen = () => socket.send("hello from the page");
socket.onmessage = ({ data }) => typeof data === "string" && log(data);
socket.onclose = ({ code, wasClean }) => log(`closed: ${code}, ${wasClean ? "" : "not "}clean`);
