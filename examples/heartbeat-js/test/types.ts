// Compiled, never run: the types are those of the module, and say what they should.
import * as module from "../heartbeat.js";
import type * as Types from "../types.d.ts";

declare const socket: WebSocket;
declare const documented: typeof Types;
const { Heartbeat, reconnecting } = documented;

// What is documented is there. The listeners are an EventTarget's.
type Own<T> = Omit<T, "addEventListener" | "removeEventListener">;
const heartbeat: Own<Types.Heartbeat> = new module.Heartbeat(socket);
const open = () => new module.Heartbeat(socket);
const always: Omit<Own<Types.Reconnecting>, "current"> = module.reconnecting(open);
const frames: Pick<typeof Types, "encode" | "decode" | "ProtocolError"> = module;
export { heartbeat, always, frames };

const server = new Heartbeat(socket, { detectWithin: 4000, signal: AbortSignal.timeout(1) });
server.addEventListener("message", ({ detail }) => detail.byteLength);
server.addEventListener("dead", ({ detail }) => detail.close?.wasClean);
server.send(new Uint16Array(1));
// @ts-expect-error: text is no message
server.send("hello");
// @ts-expect-error: it is misspelt
new Heartbeat(socket, { detectWithing: 4000 });
// @ts-expect-error: there is no such property
server.addEventListener("beat", ({ detail }) => detail.rrt);
// @ts-expect-error: there is no such event
server.addEventListener("death", () => {});
export const last: Promise<Types.End | null> = reconnecting(() => server, {
  retry: ({ type }) => type === "dead",
}).ended;
