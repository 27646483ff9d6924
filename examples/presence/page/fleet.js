// The page of a gateway: a client like any other, which is shown the fleet.
import { Heartbeat, reconnecting } from "./heartbeat.js";

const DETECT_WITHIN = 6000;
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const byId = (id) => document.getElementById(id);

const user = `page-${Math.random().toString(36).slice(2, 8)}`;
const gateway = reconnecting(() => {
  const url = new URL("socket", location.href);
  url.protocol = "ws:";
  return new Heartbeat(new WebSocket(url), { detectWithin: DETECT_WITHIN });
});

gateway.addEventListener("connected", () => {
  gateway.send(encoder.encode(JSON.stringify({ Join: { user, shows: true } })));
});
gateway.addEventListener("message", ({ detail }) => {
  const { Fleet: view } = JSON.parse(decoder.decode(detail));
  if (view) show(view);
});
gateway.addEventListener("suspect", () => say("this gateway doesn't answer", true));
gateway.addEventListener("dead", ({ detail }) => say(`connection lost: ${detail.cause}`, true));
gateway.addEventListener("closed", () => say("the gateway said goodbye", true));

function say(text, amiss) {
  byId("standing").textContent = text;
  byId("standing").className = amiss ? "amiss" : "";
}

function show(view) {
  byId("present").textContent = view.present;
  byId("gateway").textContent = view.gateway;
  const old = view.age_ms > 2000;
  const ghosts = view.ghosts === 0 ? "" : `, ${view.ghosts} GHOSTS`;
  const age = old ? `; this is ${(view.age_ms / 1000).toFixed(0)} s old` : "";
  say(view.standing + age + ghosts, old || view.ghosts !== 0);
  byId("promises").replaceChildren(...view.promises.map((text) => element("li", text)));
  byId("gateways").replaceChildren(
    ...view.gateways.map((place) => {
      const row = element("tr");
      const lease = `lease ${(place.lease_ms / 1000).toFixed(1)} s`;
      row.append(element("td", place.name), element("td", lease), element("td", place.connections));
      if (place.lease_ms === 0) row.className = "amiss";
      return row;
    }),
  );
  byId("users").replaceChildren(
    ...view.users.map(({ name, at }) => {
      const item = element("li", at.length === 0 ? `${name}: away` : `${name} @ ${at.join(", ")}`);
      if (at.length === 0) item.className = "away";
      return item;
    }),
  );
  byId("news").replaceChildren(...view.news.map((text) => element("li", text)));
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
