// What processor and loader did: a row per model, newest at the right, scrolling. Each row is two
// lanes: the processor above, the loader below; a stroke through both is a moment at which a ladder chose the model.

import { byId, colour, el, fit, modelColour, seconds, setAttribute, setText, sync } from "./util.js";

const RANGES = [10, 20, 30];
const ROW = 28;
const AXIS = 20;
const LAG = 0.8; // seconds shown late, so that spans are complete when they scroll in
const IDLE = "\u0000idle";
const KEEP = 40;
const LANES = { processor: [5, 12], loader: [19, 6], ladder: [1, 26] }; // top and height in a row, pixels
const LEAST = { evict: 2, choose: 2 }; // least width of what takes hardly any time, pixels

export function timeline() {
  const canvas = byId("timeline");
  const tip = byId("timeline-tip");
  let spans = [];
  let rows = [];
  let offset = null; // box seconds minus page seconds
  let range = RANGES[1];
  let pointer = null;
  let frozen = null;
  let drawn = 0;

  const buttons = RANGES.map((s) => {
    const button = el("button", { type: "button", text: `${s} s`, "aria-pressed": String(s === range) });
    button.addEventListener("click", () => {
      range = s;
      buttons.forEach((other) => setAttribute(other, "aria-pressed", String(other === button)));
      paint();
    });
    return button;
  });
  byId("timeline-range").append(...buttons);
  canvas.addEventListener("pointermove", (event) => {
    pointer = { x: event.offsetX, y: event.offsetY };
    frozen ??= now();
    paint();
  });
  canvas.addEventListener("pointerleave", () => {
    pointer = frozen = null;
    tip.hidden = true;
  });

  const now = () => performance.now() / 1000 + offset - LAG;
  const rowOf = (span) => rows.findIndex((row) => row.name === (span.model ?? IDLE));

  function paint() {
    const [context, width, height] = fit(canvas);
    context.clearRect(0, 0, width, height);
    if (offset === null) return;
    const end = frozen ?? now();
    const x = (s) => width * (1 - (end - s) / range);
    drawAxis(context, width, height, x, end, range, rows.length);
    for (const span of spans) {
      const row = rowOf(span);
      const [left, right] = [x(span.start_seconds), x(span.start_seconds + span.seconds)];
      if (row < 0 || right < 0 || left > width) continue;
      const [top, tall] = LANES[span.lane];
      context.fillStyle = colour(span.kind);
      context.fillRect(left, AXIS + row * ROW + top, Math.max(right - left - 0.5, LEAST[span.kind] ?? 1), tall);
    }
    if (pointer) showTip(end, width);
  }

  function showTip(end, width) {
    const row = Math.floor((pointer.y - AXIS) / ROW);
    const lane = (pointer.y - AXIS) % ROW >= 18 ? "loader" : "processor";
    const at = end - range * (1 - pointer.x / width);
    const slack = (3 * range) / width;
    const hits = spans.filter((span) => rowOf(span) === row && (span.lane === lane || span.lane === "ladder"));
    const near = (span) => Math.max(span.start_seconds - at, at - span.start_seconds - span.seconds, 0);
    // A choice is a moment within other spans: when the pointer is on it, it comes first.
    const rank = (span) => (span.lane === "ladder" ? (near(span) <= slack ? -1 : Infinity) : near(span));
    const best = hits.reduce((a, b) => (a && rank(a) <= rank(b) ? a : b), null);
    tip.hidden = !best || near(best) > slack;
    if (tip.hidden) return;
    const frames = best.frames ? ` · ${best.frames} frame${best.frames === 1 ? "" : "s"}` : "";
    const what = best.lane === "ladder" ? best.text : `${best.kind} ${best.model ?? ""} · ${seconds(best.seconds)}${frames}`;
    setText(tip, `${what} · at ${best.start_seconds.toFixed(2)} s`);
    const half = tip.offsetWidth / 2;
    tip.style.left = `${Math.max(half, Math.min(width - half, pointer.x))}px`;
    tip.style.top = `${AXIS + row * ROW - 6}px`;
  }

  function tick(time) {
    // Twenty pictures a second look smooth for something that scrolls a few pixels in that time.
    if (time - drawn > 48 && frozen === null) {
      drawn = time;
      paint();
    }
    requestAnimationFrame(tick);
  }
  requestAnimationFrame(tick);

  return {
    reset() {
      spans = [];
      offset = null;
    },
    add(fresh, report) {
      const here = performance.now() / 1000;
      const measured = report.uptime_seconds - here;
      // The message that was under way for the shortest time says best what the box's clock shows.
      offset = offset === null || Math.abs(measured - offset) > 2 ? measured : Math.max(offset, measured);
      spans = [...spans, ...fresh].filter((span) => span.start_seconds + span.seconds > report.uptime_seconds - KEEP);
    },
    update(report) {
      rows = report.models.map((model, i) => ({ name: model.name, label: model.name, ink: modelColour(i) }));
      rows.push({ name: IDLE, label: "idle", ink: "wait" });
      sync(byId("timeline-rows"), rows, (row) => row.name,
        () => el("li", {}, el("i", { class: "swatch", "aria-hidden": "true" }), el("span")),
        (node, row) => {
          node.firstChild.style.background = `var(--${row.ink})`;
          setText(node.lastChild, row.label);
        });
      canvas.style.height = `${AXIS + rows.length * ROW}px`;
      const { busy, loads, evictions } = activity(spans, report.uptime_seconds, range);
      const share = Math.round(100 * busy);
      setAttribute(canvas, "aria-label",
        `Last ${range} seconds: processor busy ${share} %, ${loads} loads, ${evictions} evictions`);
    },
    busy: (report) => activity(spans, report.uptime_seconds, 10).busy,
    redraw: paint,
  };
}

function activity(spans, end, range) {
  const recent = spans.filter((span) => span.start_seconds + span.seconds > end - range);
  const inside = (span) => Math.min(span.seconds, span.start_seconds + span.seconds - (end - range));
  const inferring = recent.filter((span) => span.lane === "processor" && span.kind === "infer");
  return {
    busy: Math.min(1, inferring.reduce((sum, span) => sum + inside(span), 0) / Math.min(range, Math.max(end, 1e-3))),
    loads: recent.filter((span) => span.kind === "load").length,
    evictions: recent.filter((span) => span.kind === "evict").length,
  };
}

function drawAxis(context, width, height, x, end, range, rows) {
  context.fillStyle = colour("muted");
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.font = "11px " + getComputedStyle(context.canvas).fontFamily;
  context.textBaseline = "middle";
  const step = width < 420 ? range / 2 : range / 5;
  for (let back = 0; back <= range; back += step) {
    const at = Math.round(x(end - back)) - 0.5;
    context.textAlign = back === 0 ? "right" : back === range ? "left" : "center";
    context.fillText(back === 0 ? "now" : `−${back} s`, Math.max(0, at), 8);
    context.beginPath();
    context.moveTo(at, AXIS);
    context.lineTo(at, height);
    context.stroke();
  }
  for (let row = 0; row <= rows; row += 1) {
    context.beginPath();
    context.moveTo(0, AXIS + row * ROW + 0.5);
    context.lineTo(width, AXIS + row * ROW + 0.5);
    context.stroke();
  }
}
