// The page of the chat. When the server is dead, and when to connect again, is known to
// heartbeat.js; this file shows what the server says, and says so when it is silent.
// Everything that somebody typed is shown as text, never as HTML.

import { Heartbeat, reconnecting } from "./heartbeat.js";

const DETECT_WITHIN = 4000;
const LINES = 200;

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// ---- the connection ---------------------------------------------------------

let name = query.get("name") ?? sessionStorage.getItem("name") ?? "Guest";
/** Whether we are in the room. */
let present = false;
/** Why there is no connection, while there is none. */
let outage = null;
/** What we said and haven't heard yet: nobody may have. */
const unheard = [];

const server = reconnecting(
  () => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/socket`);
    return new Heartbeat(socket, { detectWithin: DETECT_WITHIN });
  },
  { first: 250, longest: 4000, lasting: 2000 },
);
const listen = (type, act) => server.addEventListener(type, ({ detail }) => act(detail));
listen("connected", () => tell({ Join: { name, badge: null } }));
listen("message", (detail) => {
  const message = JSON.parse(decoder.decode(detail));
  const [kind, content] = Object.entries(message)[0];
  receive[kind]?.(content);
});
listen("closed", (detail) => {
  lose(detail.reason === "peer" ? `The server said goodbye${saying(detail)}` : null);
});
listen("dead", (detail) => lose(words(detail)));

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

/** The connection is gone; without a reason because we wanted that. */
function lose(why) {
  present = false;
  // The first reason is the one that says something.
  outage ??= why;
  const field = element("text");
  field.value = [...unheard.splice(0), field.value].filter(Boolean).join(" ");
  tick();
}

/** False if there is nobody to tell it to. */
function tell(message) {
  return server.send(encoder.encode(JSON.stringify(message)));
}

// ---- what the server says -----------------------------------------------------

let welcome = null;
let roster = null;
let rosterAt = 0;

const receive = {
  Welcome(content) {
    welcome = content;
    present = true;
    outage = null;
    // A server that was started anew counts anew.
    roster = null;
    keep(rows, element("members"), []);
    keep(departed, element("left"), []);
    showName(content.name);
    log(null, "You are in the room, as ", isolated(content.name));
    tick();
  },
  Said({ from, text }) {
    if (from === welcome?.name) unheard.shift();
    log(from, isolated(text));
  },
  Notice: ({ text }) => log(null, isolated(text)),
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
  show(element("count"), String(roster.members.length));
  keep(rows, element("members"), roster.members, newRow, updateRow);
  keep(departed, element("left"), roster.left, newDeparted, updateDeparted);
  element("gone").hidden = roster.left.length === 0;
}

/**
 * One element for each item, in their order; those that stay keep the focus. That of one
 * that goes is taken by the next.
 */
function keep(known, parent, items, create, update) {
  const ids = new Set(items.map((item) => item.id));
  let focused = -1;
  for (const [id, node] of known) {
    if (ids.has(id)) continue;
    if (node.contains(document.activeElement)) focused = [...parent.children].indexOf(node);
    node.remove();
    known.delete(id);
  }
  items.forEach((item, index) => {
    const node = known.get(item.id) ?? create(item);
    known.set(item.id, node);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
    update(node, item);
  });
  if (focused >= 0) focusNear(parent, focused);
}

/** On the next row that has a button, or else on the heading. */
function focusNear(parent, index) {
  const rows = [...parent.children];
  const near = [...rows.slice(index), ...rows.slice(0, index).reverse()];
  const buttons = near.map((row) => row.querySelector("button:enabled"));
  (buttons.find((button) => button !== null) ?? element("people-title")).focus();
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
      button.disabled = !present;
      button.addEventListener("click", () => tell({ Ask: { Do: { bot: bot.number, deed } } }));
      return button;
    }),
  );
  if (focused < 0) return;
  const row = parent.closest("li");
  const rows = row.parentElement;
  if (deeds.length === 0) focusNear(rows, [...rows.children].indexOf(row));
  else parent.children[Math.min(focused, deeds.length - 1)].focus();
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
  item.append(isolated(left.name), make("span", `how ${left.cause}`, left.how));
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
  const found = gone.flatMap(([who, why]) => [", ", isolated(who), ` is gone (${why})`]);
  const others = asked === 1 ? "1 was" : `${asked} were`;
  element("checked").replaceChildren(
    `Asked the kernel about ${sockets} connections: `,
    ...(gone.length === 0 ? ["none is gone"] : found.slice(1)),
    `. ${others} asked for a beat.`,
  );
  checkedUntil = performance.now() + 20_000;
}

// ---- the room -------------------------------------------------------------------

function log(from, ...parts) {
  const list = element("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = make("li", from === null ? "notice" : from === welcome?.name ? "mine" : "");
  if (from !== null) item.append(isolated(from));
  item.append(...parts);
  list.append(item);
  while (list.children.length > LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

element("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = element("text");
  const text = field.value.trim();
  if (text === "" || !present || !tell({ Say: { text } })) return;
  unheard.push(text);
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
  // Without a connection the next one has it.
  if (present) server.reopen();
});

// ---- what goes on while nobody says anything --------------------------------------

/** As words: of the connection, of a trouble, and how long that has taken or will take. */
function describeLink() {
  if (outage !== null) {
    const wait = Math.ceil((server.retryAt - performance.now()) / 1000);
    const next = server.retryAt !== null && wait > 0 ? `Trying again in ${wait} s` : "Trying again";
    const last = server.state === "ended" ? "Reload the page to try again" : next;
    return ["gone", "Not connected", `${outage}.`, ` ${last}.`];
  }
  if (!present) return ["", "Connecting…", "", ""];
  const { silentFor, missed } = server.current.status;
  if (missed === 0) return ["alive", "Connected", "", ""];
  return ["suspect", "No answer", "The server has not answered", ` for ${seconds(silentFor)}.`];
}

function tick() {
  const now = performance.now();
  const [state, link, warning, time] = describeLink();
  // A screen reader says these two again when they change; so no time is in them.
  show(element("link"), link);
  show(element("warning"), warning);
  show(element("time"), time);
  const lastRtt = server.current?.status.lastRtt ?? null;
  show(element("lag"), state === "alive" && lastRtt !== null ? millis(lastRtt) : "");
  if (element("link").className !== `link ${state}`) element("link").className = `link ${state}`;
  element("banner").hidden = warning === "";
  element("banner").classList.toggle("gone", state === "gone");
  if (now > checkedUntil) show(element("checked"), "");
  enable(present);
  document.querySelector(".people").classList.toggle("stale", warning !== "");
  if (roster === null || warning !== "") return;

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

/** The button that had the focus when it was disabled. */
let waits = null;

/** All buttons: each needs a server. */
function enable(able) {
  for (const button of document.querySelectorAll("button")) {
    if (button.disabled !== able) continue;
    if (button === document.activeElement) waits = button;
    button.disabled = !able;
  }
  if (!able || waits === null) return;
  if (document.activeElement === document.body) waits.focus();
  waits = null;
}

// ---- small things -------------------------------------------------------------------

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className !== "") node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** Text of somebody's, which changes the order of nothing around it. */
function isolated(text) {
  return make("bdi", "", text);
}

/** Nothing changes where it says so already: a screen reader would say it again. */
function show(node, text) {
  if (node.textContent !== text) node.textContent = text;
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
setInterval(tick, 100);
