// The page of the chat. What the heartbeat does is in heartbeat.js; this file
// connects, shows what the server says, and says so when the server is silent.
// Everything that somebody typed is shown as text, never as HTML.

import { Heartbeat } from "./heartbeat.js";

const DETECT_WITHIN = 4000;
const FIRST_WAIT = 250;
const LONGEST_WAIT = 4000;
const LINES = 200;

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// ---- the connection ---------------------------------------------------------

let server = null;
let name = query.get("name") ?? sessionStorage.getItem("name") ?? "Guest";
let failures = 0;
/** While there is no connection: why, since when, and when we try again. */
let outage = null;
let leaving = false;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/socket`);
  const current = new Heartbeat(socket, { detectWithin: DETECT_WITHIN });
  server = current;
  // A former one, which we left, may still have something to tell.
  const listen = (type, act) =>
    current.addEventListener(type, ({ detail }) => current === server && act(detail));
  listen("connected", () => tell({ Join: { name, badge: null } }));
  listen("message", (detail) => {
    const message = JSON.parse(decoder.decode(detail));
    const [kind, content] = Object.entries(message)[0];
    receive[kind]?.(content);
  });
  listen("closed", (detail) => {
    if (detail.reason === "peer") tryAgain(`The server said goodbye${saying(detail)}`);
  });
  listen("dead", (detail) => tryAgain(words(detail)));
}

/** What somebody said of it, as text. */
function saying({ detail }) {
  return detail === "" ? "" : ` (${detail})`;
}

function words({ cause, silentFor, error, detail }) {
  switch (cause) {
    case "given up":
      return `The server gave us up${saying({ detail })}`;
    case "silent":
      return `The server is gone: no answer for ${seconds(silentFor)}`;
    case "protocol":
      return `The server speaks something else (${error.message})`;
    case "unreachable":
      return "No server there";
    default:
      return "The server is gone: the connection was cut";
  }
}

// Exponential, with full jitter: a server that comes back isn't overrun.
function tryAgain(why) {
  if (leaving) return;
  const wait = Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures);
  failures += 1;
  // The first reason is the one that says something.
  outage = { why: outage?.why ?? why, at: performance.now() + wait };
  setTimeout(connect, wait);
  tick();
}

function tell(message) {
  server.send(encoder.encode(JSON.stringify(message)));
}

addEventListener("pagehide", () => {
  leaving = true;
  server.close();
});
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  leaving = false;
  connect();
});

// ---- what the server says -----------------------------------------------------

let welcome = null;
let roster = null;
let rosterAt = 0;

const receive = {
  Welcome(content) {
    welcome = content;
    outage = null;
    failures = 0;
    // A server that was started anew counts anew.
    roster = null;
    keep(rows, element("members"), []);
    keep(departed, element("left"), []);
    showName(content.name);
    log(null, `You are in the room, as ${content.name}`);
    tick();
  },
  Said: ({ from, text }) => log(from, text),
  Notice: ({ text }) => log(null, text),
  Roster(content) {
    roster = content;
    rosterAt = performance.now();
    showRoster();
    tick();
  },
  Checked: showChecked,
};

// ---- connections --------------------------------------------------------------

const rows = new Map();
const departed = new Map();

function showRoster() {
  element("count").textContent = roster.members.length;
  keep(rows, element("members"), roster.members, newRow, updateRow);
  keep(departed, element("left"), roster.left, newDeparted, updateDeparted);
  element("gone").hidden = roster.left.length === 0;
}

/** One element for each item, in their order; those that stay keep the focus. */
function keep(known, parent, items, create, update) {
  const ids = new Set(items.map((item) => item.id));
  for (const [id, node] of known) {
    if (ids.has(id)) continue;
    node.remove();
    known.delete(id);
  }
  items.forEach((item, index) => {
    const node = known.get(item.id) ?? create(item);
    known.set(item.id, node);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
    update(node, item);
  });
}

function newRow(member) {
  const row = element("member").content.firstElementChild.cloneNode(true);
  row.dataset.name = member.name;
  row.querySelector(".called").textContent = member.name;
  const pips = row.querySelector(".pips");
  for (let beat = 0; beat < roster.max_missed; beat += 1) pips.append(make("i"));
  return row;
}

function updateRow(row, member) {
  const { bot, condition, missed, rtts } = member;
  const state = condition.toLowerCase();
  row.className = `row ${state}`;
  row.dataset.state = state;
  const you = member.id === welcome?.id ? " · you" : "";
  const process = bot === null ? "" : ` · process ${bot.process}`;
  row.querySelector(".kind").textContent = `${member.kind.toLowerCase()}${process}${you}`;
  row.querySelector(".state").textContent = describe(state, member);
  if (member.silent_ms < Number(row.dataset.silent ?? 0)) pulse(row.querySelector(".dot"));
  row.dataset.silent = member.silent_ms;

  row.querySelectorAll(".pips i").forEach((pip, index) => {
    pip.className = index < missed ? "is-missed" : "";
  });
  row.querySelector(".misses").textContent = missed === 0 ? "none" : `${missed} of ${roster.max_missed}`;

  const last = rtts.findLast((rtt) => rtt !== null);
  row.querySelector(".rtt").textContent = last === undefined ? "–" : millis(last);
  drawSpark(row.querySelector(".spark"), rtts);

  const deeds = [];
  if (bot !== null) {
    deeds.push(bot.frozen ? ["Thaw", "thaw"] : ["Freeze", "freeze"]);
    deeds.push(condition === "Held" ? ["ReadOn", "read again"] : ["Hold", "stop reading"]);
    deeds.push(["HangUp", "hang up politely"], ["Kill", "kill"]);
  }
  showDeeds(row.querySelector(".deeds"), member, deeds);
}

function describe(state, { bot, missed }) {
  const frozen = bot?.frozen ? " (frozen)" : "";
  switch (state) {
    case "suspect":
      return `suspect: ${missed === 0 ? "a beat is late" : "no answer"}${frozen}`;
    case "held":
      return `not read, so not judged${frozen}`;
    default:
      return `alive${frozen}`;
  }
}

function pulse(dot) {
  dot.classList.remove("heard");
  dot.getBoundingClientRect(); // the animation begins anew
  dot.classList.add("heard");
}

function showDeeds(parent, { name: of, bot }, deeds) {
  const wanted = deeds.map(([deed]) => deed).join();
  if (parent.dataset.deeds === wanted) return;
  const focused = [...parent.children].indexOf(document.activeElement);
  parent.dataset.deeds = wanted;
  parent.replaceChildren(
    ...deeds.map(([deed, label]) => {
      const button = make("button", deed === "Kill" ? "harsh" : "", label);
      button.type = "button";
      button.dataset.deed = deed;
      button.setAttribute("aria-label", `${label}: ${of}`);
      button.addEventListener("click", () => tell({ Ask: { Do: { bot: bot.number, deed } } }));
      return button;
    }),
  );
  if (focused >= 0) parent.children[Math.min(focused, deeds.length - 1)]?.focus();
}

/** The last round trips as a line; a missed beat is a gap with a mark. */
function drawSpark(svg, rtts) {
  const width = 120;
  const height = 28;
  const most = 40;
  const highest = Math.max(0.5, ...rtts.map((rtt) => rtt ?? 0));
  const x = (index) => ((index + most - rtts.length) * width) / (most - 1);
  const y = (rtt) => height - 3 - (rtt / highest) * (height - 6);
  const shapes = [];
  let line = [];
  const finish = () => {
    if (line.length === 1) line.push(line[0]);
    if (line.length > 0) shapes.push(shape("polyline", { points: line.join(" ") }));
    line = [];
  };
  rtts.forEach((rtt, index) => {
    if (rtt === null) {
      finish();
      const at = x(index);
      shapes.push(shape("line", { class: "late", x1: at, x2: at, y1: 4, y2: height - 3 }));
    } else {
      line.push(`${x(index).toFixed(1)},${y(rtt).toFixed(1)}`);
    }
  });
  finish();
  svg.replaceChildren(...shapes);
  svg.setAttribute("aria-label", `the last ${rtts.length} round trips`);
}

function newDeparted(left) {
  const item = make("li");
  item.dataset.name = left.name;
  item.dataset.cause = left.cause;
  item.append(make("b", "", left.name), make("span", `how ${left.cause}`, left.how));
  item.append(make("span", "deeds"), make("span", "ago"));
  return item;
}

function updateDeparted(item, left) {
  const deeds = [];
  if (left.bot?.frozen) deeds.push(["Thaw", "thaw"]);
  if (left.bot !== null) deeds.push(["Kill", "kill"]);
  showDeeds(item.querySelector(".deeds"), left, deeds);
}

let checkedUntil = 0;

function showChecked({ sockets, gone, asked }) {
  const found =
    gone.length === 0
      ? "none is gone"
      : gone.map(([who, why]) => `${who} is gone (${why})`).join(", ");
  const others = asked === 1 ? "1 was" : `${asked} were`;
  element("checked").textContent =
    `Asked the kernel about ${sockets} connections: ${found}. ${others} asked for a beat.`;
  checkedUntil = performance.now() + 20_000;
}

// ---- the room -------------------------------------------------------------------

function log(from, text) {
  const list = element("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = make("li", from === null ? "notice" : from === welcome?.name ? "mine" : "");
  if (from !== null) item.append(make("b", "", from));
  item.append(text);
  list.append(item);
  while (list.children.length > LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

element("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = element("text");
  const text = field.value.trim();
  if (text === "" || outage !== null) return;
  tell({ Say: { text } });
  field.value = "";
});

element("add").addEventListener("click", () => tell({ Ask: "AddBot" }));
element("check").addEventListener("click", () => tell({ Ask: "CheckConnections" }));

function showName(shown) {
  if (document.activeElement !== element("name")) element("name").value = shown;
}

element("name").addEventListener("change", ({ target }) => {
  name = target.value.trim() || "Guest";
  sessionStorage.setItem("name", name);
  target.blur();
  server.close();
  connect();
});

// ---- what goes on while nobody says anything --------------------------------------

function tick() {
  const now = performance.now();
  const { state, silentFor, lastRtt } = server.status;
  const link = element("link");
  const banner = element("banner");
  let warning = null;
  if (outage !== null) {
    const wait = Math.ceil((outage.at - now) / 1000);
    const next = wait > 0 ? `Trying again in ${wait} s` : "Trying again";
    warning = `${outage.why}. ${next}.`;
    link.className = "link gone";
    link.textContent = "Not connected";
  } else if (state === "suspect") {
    warning = `The server has not answered for ${seconds(silentFor)}.`;
    link.className = "link suspect";
    link.textContent = "No answer";
  } else if (state === "alive" && welcome !== null) {
    link.className = "link alive";
    link.textContent = lastRtt === null ? "Connected" : `Connected, ${millis(lastRtt)}`;
  }
  if (now > checkedUntil) element("checked").textContent = "";
  banner.hidden = warning === null;
  banner.className = outage === null ? "banner" : "banner gone";
  if (warning !== null && banner.textContent !== warning) banner.textContent = warning;
  for (const id of ["add", "check"]) element(id).disabled = outage !== null;
  document.querySelector(".people").classList.toggle("stale", warning !== null);
  if (roster === null || warning !== null) return;

  const since = now - rosterAt;
  for (const { id, silent_ms } of roster.members) {
    const row = rows.get(id);
    const silent = silent_ms + since;
    row.querySelector(".ago").textContent = `${seconds(silent)} ago`;
    const part = Math.min(1, silent / roster.detection_ms);
    row.querySelector(".fill").style.setProperty("transform", `scaleX(${part.toFixed(3)})`);
  }
  for (const { id, ago_ms } of roster.left) {
    departed.get(id).querySelector(".ago").textContent = `${Math.round((ago_ms + since) / 1000)} s ago`;
  }
}

// ---- small things -------------------------------------------------------------------

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className !== "") node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function seconds(time) {
  return `${(time / 1000).toFixed(1)} s`;
}

function millis(time) {
  return time < 10 ? `${time.toFixed(2)} ms` : `${Math.round(time)} ms`;
}

showName(name);
connect();
setInterval(tick, 100);
