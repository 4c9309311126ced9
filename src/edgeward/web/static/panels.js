// The panels of numbers: header, key figures, model memory, queries.

import {
  byId, bytes, count, drawSparkline, el, modelColour, percent, rate, seconds, setAttribute, setText, span, sparkline, sync,
} from "./util.js";

const HISTORY = 60; // states, half a minute
const BUSY = 0.5; // programs beside the box that are worth a word

export function header() {
  const words = { starting: ["Starting", "warn"], running: ["Running", "good"], draining: ["Draining", "warn"], stopped: ["Stopped", "idle"] };
  return {
    update(report) {
      const [word, tone] = words[report.status];
      setText(byId("status"), word);
      setAttribute(byId("status"), "data-tone", tone);
      setText(byId("uptime"), span(report.uptime_seconds));
      setText(byId("device"), report.device);
      setText(byId("policy"), report.policy);
      setText(byId("version"), report.version);
      byId("warnings").hidden = !report.warnings.length;
      setText(byId("warnings"), report.warnings.join(" · "));
      document.title = `${rate(report.throughput_fps)} fps · edgeward`;
    },
    disconnected() {
      setText(byId("status"), "Disconnected");
      setAttribute(byId("status"), "data-tone", "bad");
    },
  };
}

export function figures() {
  const names = ["Throughput", "In time", "Waiting", "Staleness", "Processor", "Memory"];
  const cells = names.map((name) => {
    const [value, note, spark] = [el("strong"), el("span", { class: "note" }), sparkline()];
    byId("figures").append(el("div", { class: "figure" }, el("span", { class: "label", text: name }), value, note, spark));
    return { value, note, spark, past: [] };
  });
  return {
    update(report, past, busy) {
      const live = new Set(report.cameras.filter((camera) => camera.status === "live").map((camera) => camera.name));
      const fresh = report.queries.filter((query) => live.has(query.camera));
      const waiting = report.queries.reduce((sum, query) => sum + query.waiting, 0);
      const stale = fresh.map((query) => query.staleness_seconds).filter((s) => s !== null);
      const { memory } = report;
      const recent = recentInTime(report, past);
      setAttribute(cells[1].value, "data-tone", grade(recent));
      const rows = [
        [report.throughput_fps, rate(report.throughput_fps), "answers a second"],
        [recent ?? 0, percent(recent), "of answers due, last 30 s"],
        [waiting, count(waiting), waiting === 1 ? "frame" : "frames"],
        [Math.max(0, ...stale), stale.length ? seconds(Math.max(...stale)) : "–", "oldest live answer"],
        [busy, percent(busy), "busy, last 10 s"],
        [memory.resident_bytes, bytes(memory.resident_bytes), `of ${bytes(memory.budget_bytes)} for models`],
      ];
      rows.forEach(([number, text, note], i) => {
        const cell = cells[i];
        setText(cell.value, text);
        setText(cell.note, note);
        cell.past = [...cell.past, number].slice(-HISTORY);
        drawSparkline(cell.spark, cell.past);
      });
    },
  };
}

// What a share of answers in time deserves: nothing while all is well.
function grade(share) {
  if (share === null) return "idle";
  return share >= 0.95 ? "" : share >= 0.8 ? "warn" : "bad";
}

// The share that was in time of what was settled since the oldest state that we remember.
function recentInTime(report, past) {
  const settled = (r) => r.queries.reduce((sum, q) => sum + q.due - q.waiting, 0);
  const inTime = (r) => r.queries.reduce((sum, q) => sum + q.in_time, 0);
  const before = past[0];
  const [fresh, all] = before && settled(report) > settled(before)
    ? [inTime(report) - inTime(before), settled(report) - settled(before)]
    : [inTime(report), settled(report)];
  return all > 0 ? Math.min(1, Math.max(0, fresh / all)) : null;
}

export function memory() {
  const bar = byId("memory-bar");
  return {
    update(report) {
      const { budget_bytes: budget, resident_bytes: resident, process_bytes: process } = report.memory;
      const shares = report.memory.shares.filter((share) => share.bytes > 0);
      const whole = Math.max(budget, resident, 1);
      const index = new Map(report.models.map((model, i) => [model.name, i]));
      sync(bar, shares, (share) => share.model,
        () => el("span", { class: "share" }),
        (node, share) => {
          node.style.width = `${(100 * share.bytes) / whole}%`;
          node.style.background = `var(--${modelColour(index.get(share.model) ?? -1)})`;
          setText(node, share.model);
          setAttribute(node, "title", `${share.model}: ${bytes(share.bytes)}`);
        });
      const parts = shares.map((share) => `${share.model} ${bytes(share.bytes)}`).join(", ");
      setAttribute(bar, "aria-label", `${bytes(resident)} of ${bytes(budget)} resident: ${parts || "nothing"}`);
      setText(byId("memory-note"), `${bytes(resident)} of ${bytes(budget)} · process ${bytes(process)}`);
      sync(byId("memory-models"), report.models, (model) => model.name, createModel,
        (node, model, i) => updateModel(node, model, i, whole));
    },
  };
}

function createModel() {
  const parts = { swatch: el("i", { class: "swatch", "aria-hidden": "true" }), name: el("span", { class: "name" }),
    status: el("span", { class: "badge" }), size: el("span", { class: "size" }), fill: el("span"), note: el("span", { class: "note" }) };
  const node = el("li", {}, parts.swatch, parts.name, parts.status, parts.size,
    el("span", { class: "scale", "aria-hidden": "true" }, parts.fill), parts.note);
  node.parts = parts;
  return node;
}

function updateModel(node, model, i, whole) {
  const { swatch, name, status, size, fill, note } = node.parts;
  const tones = { resident: "good", loading: "warn", absent: "idle", failed: "bad" };
  setAttribute(node, "data-status", model.status);
  swatch.style.background = fill.style.background = `var(--${modelColour(i)})`;
  fill.style.width = `${Math.min(100, (100 * model.bytes) / whole)}%`;
  setText(name, model.name);
  setText(status, model.status);
  setAttribute(status, "data-tone", tones[model.status]);
  setText(size, bytes(model.bytes));
  const took = model.seconds_median === null ? "not run yet" : `${seconds(model.seconds_median)} (p95 ${seconds(model.seconds_p95)})`;
  const moves = `${count(model.loads)} loads, ${count(model.evictions)} evictions`;
  setText(note, model.status === "failed" ? model.detail || "failed" : `${took} · ${moves}`);
}

export function queries() {
  return {
    update(report) {
      const index = new Map(report.models.map((model, i) => [model.name, i]));
      sync(byId("queries"), report.queries, (query) => query.name, createRow,
        (row, query) => updateRow(row, query, index.get(query.model) ?? -1));
    },
  };
}

function createRow() {
  const cell = (label, number = true) => el("td", { "data-label": label, class: number ? "n" : "" });
  const parts = {
    swatch: el("i", { class: "swatch", "aria-hidden": "true" }), name: el("strong"), what: el("span", { class: "note" }),
    ladder: el("span", { class: "ladder" }), why: el("span", { class: "note why" }),
    share: el("span", { class: "share-text" }), meter: el("span", { class: "fill" }), spark: sparkline(), fps: el("span"),
    staleness: cell("Staleness"), due: cell("Due"), waiting: cell("Waiting"), late: cell("Late"), skipped: cell("Skipped"),
    zones: cell("Zones", false), accuracy: cell("Accuracy", false), past: [],
  };
  const inTime = cell("In time", false);
  inTime.append(parts.share, el("span", { class: "meter", "aria-hidden": "true" }, parts.meter));
  const fps = cell("Answers/s");
  fps.append(parts.spark, parts.fps);
  const row = el("tr", {},
    el("th", { scope: "row" }, parts.swatch, parts.name, parts.what, parts.ladder, parts.why),
    inTime, fps, parts.staleness, parts.due, parts.waiting, parts.late, parts.skipped, parts.zones, parts.accuracy);
  row.parts = parts;
  return row;
}

// The models a query chooses from, each with the accuracy on screen that it is expected to reach.
function updateLadder(parts, query) {
  sync(parts.ladder, query.ladder?.rungs ?? [], (rung) => rung.model, () => el("span", { class: "rung" }),
    (node, rung) => {
      const active = rung.model === query.model;
      setText(node, rung.relative === null || active ? rung.model : `${rung.model} ${percent(rung.relative)}`);
      setAttribute(node, "data-state", rung.out ? "out" : active ? "active" : "");
      setAttribute(node, "title", rung.out || (rung.seconds === null ? "" : `expected to take ${seconds(rung.seconds)}`));
    });
  const busy = (query.ladder?.beside ?? 0) >= BUSY ? ` · beside ${query.ladder.beside.toFixed(1)} other programs` : "";
  setText(parts.why, query.ladder ? `${query.ladder.why} · ${count(query.ladder.switches)} switches${busy}` : "");
}

function updateRow(row, query, model) {
  const parts = row.parts;
  const share = query.in_time_fraction;
  parts.swatch.style.background = `var(--${modelColour(model)})`;
  setText(parts.name, query.name);
  const asked = query.rate === null ? "every frame" : `${rate(query.rate)}/s`;
  setText(parts.what, `${query.camera} → ${query.model} · ${asked} within ${seconds(query.deadline_seconds)}`);
  updateLadder(parts, query);
  setText(parts.share, percent(share));
  parts.meter.style.width = `${100 * (share ?? 0)}%`;
  const tone = grade(share) || "good";
  setAttribute(parts.meter.parentElement, "data-tone", tone);
  setAttribute(parts.share, "data-tone", tone);
  setText(parts.fps, rate(query.fps));
  parts.past = [...parts.past, query.fps].slice(-HISTORY);
  drawSparkline(parts.spark, parts.past);
  setText(parts.staleness, seconds(query.staleness_seconds));
  for (const field of ["due", "waiting", "late", "skipped"]) setText(parts[field], count(query[field]));
  sync(parts.zones, query.zones, (zone) => zone.name, () => el("span", { class: "zone" }, el("b"), el("span")),
    (node, zone) => {
      setText(node.firstChild, zone.name);
      setText(node.lastChild, ` ${zone.inside} inside · ${count(zone.entered)} in · ${count(zone.left)} out`);
    });
  parts.zones.classList.toggle("empty", query.zones.length === 0);
  const known = Object.entries(query.accuracy ?? {});
  setText(parts.accuracy, known.length ? known.map(([name, value]) => `${name} ${Number(value).toFixed(3)}`).join(", ") : "–");
  parts.accuracy.classList.toggle("empty", known.length === 0);
}
