{
  const log = (text) => document.body.append(text, document.createElement("br"));
  const open = () => {
    const socket = new WebSocket(`ws://${location.host}/socket`);
    return new Heartbeat(socket, { detectWithin: 5000 });
  };
  const server = reconnecting(open);
  const tell = (type, words) =>
    server.addEventListener(type, ({ detail }) => log(`${type} ${words(detail)}`));
  tell("message", (bytes) => new TextDecoder().decode(bytes));
  tell("suspect", ({ silentFor }) => `${Math.round(silentFor)} ms`);
  tell("recovered", ({ silentFor }) => `${Math.round(silentFor)} ms`);
  tell("dead", ({ cause }) => cause);
  tell("closed", ({ reason }) => reason);
  const hello = new TextEncoder().encode("hello from the page");
  server.addEventListener("connected", () => server.send(hello));
}
