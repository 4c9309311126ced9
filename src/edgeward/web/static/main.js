// Puts the page together: one live connection, and views that each show their part of the state.

import { cameraWall } from "./cameras.js";
import { events } from "./events.js";
import { Live } from "./live.js";
import { figures, header, memory, queries } from "./panels.js";
import { timeline } from "./timeline.js";
import { byId, forgetColours, setText, span } from "./util.js";

const HISTORY = 60;
const top = header();
const numbers = figures();
const lanes = timeline();
const residency = memory();
const table = queries();
const news = events();

let report = null;
let past = [];
let lastState = performance.now();
let link = { connected: true };

function show() {
  if (document.hidden || !report) return;
  top.update(report);
  numbers.update(report, past, lanes.busy(report));
  lanes.update(report);
  residency.update(report);
  table.update(report);
  news.update();
  wall.update(report);
}

function state(message) {
  if (report && message.report.started_at !== report.started_at) {
    past = [];
    lanes.reset();
    news.reset();
  }
  report = message.report;
  lastState = performance.now();
  lanes.add(message.spans, report);
  news.add(message.events);
  show();
  past = [...past, report].slice(-HISTORY);
}

function showLink() {
  const banner = byId("banner");
  banner.hidden = link.connected;
  document.body.classList.toggle("stale", !link.connected);
  if (link.connected) return;
  top.disconnected();
  const wait = Math.max(0, Math.ceil((link.retryAt - performance.now()) / 1000));
  const again = wait > 0 ? `Trying again in ${wait} s.` : "Trying again…";
  const since = report ? ` What you see is ${span((performance.now() - lastState) / 1000)} old.` : "";
  setText(byId("banner-text"), `Disconnected from the box${link.detail ? `: ${link.detail}` : ""}.${since} ${again}`);
}

const live = new Live({
  state,
  frame: (head, bitmap) => wall.frame(head, bitmap),
  link(status) {
    link = status;
    showLink();
  },
});
const wall = cameraWall((cameras, width, fps) => live.subscribe(cameras, width, fps));

setInterval(() => {
  if (!link.connected) showLink();
}, 500);
byId("banner-retry").addEventListener("click", () => live.retry());
document.addEventListener("visibilitychange", show);

function recolour() {
  forgetColours();
  lanes.redraw();
  wall.redraw();
}

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", recolour);
byId("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  const next = chosen === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("edgeward-theme", next);
  } catch {
    // The choice then lasts until the page is closed.
  }
  recolour();
});
