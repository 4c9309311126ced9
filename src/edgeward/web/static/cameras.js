// Camera tiles: the newest picture of each camera with boxes, tracks and zones drawn over it here,
// crisp at any size. Only tiles that can be seen are subscribed to.

import { byId, colour, count, el, fit, modelColour, rate, seconds, setAttribute, setText, sync } from "./util.js";

const FPS = 8;
const ZOOM_FPS = 12;
const FRESH = 0.5; // seconds for which a box is drawn in full
const FADED = 3; // seconds after which it is gone
const STATUS_WORDS = { connecting: "Connecting", live: "Live", retrying: "Retrying", ended: "Ended" };
const TONES = { connecting: "idle", live: "good", retrying: "bad", ended: "idle" };

export function cameraWall(subscribe) {
  const wall = byId("cameras");
  const zoom = zoomDialog(() => resubscribe());
  const views = new Map(); // name -> {camera, header, bitmap, at, canvas, visible}
  let models = new Map(); // query name -> index of its model

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const view = views.get(entry.target.camera);
      if (view) view.visible = entry.isIntersecting;
    }
    resubscribe();
  }, { rootMargin: "80px" });
  const resized = new ResizeObserver(() => {
    resubscribe();
    for (const view of views.values()) draw(view);
  });
  resized.observe(wall);
  document.addEventListener("visibilitychange", resubscribe);

  function resubscribe() {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    if (document.hidden) subscribe([], 16, FPS);
    else if (zoom.camera) subscribe([zoom.camera], Math.ceil(zoom.canvas.clientWidth * scale) || 1280, ZOOM_FPS);
    else {
      const seen = [...views.values()].filter((view) => view.visible);
      const width = Math.max(0, ...seen.map((view) => view.canvas.clientWidth));
      subscribe(seen.map((view) => view.camera.name), Math.ceil((width * scale) / 160) * 160 || 320, FPS);
    }
  }

  function createTile(camera) {
    const canvas = el("canvas", { role: "img" });
    const name = el("span", { class: "tile-name" });
    const note = el("span", { class: "tile-note" });
    const dot = el("span", { class: "dot", "aria-hidden": "true" });
    const trouble = el("span", { class: "trouble", hidden: "" });
    const button = el("button", { class: "tile", type: "button" },
      el("span", { class: "picture" }, canvas, trouble),
      el("span", { class: "caption" }, dot, name, note));
    const tile = el("li", {}, button);
    tile.camera = camera.name;
    tile.parts = { button, name, note, dot, trouble };
    views.set(camera.name, { camera, canvas, header: null, bitmap: null, at: 0, visible: true });
    button.addEventListener("click", () => {
      zoom.open(views.get(camera.name));
      resubscribe();
    });
    observer.observe(tile);
    return tile;
  }

  function updateTile(tile, camera) {
    const view = views.get(camera.name);
    const { button, name, note, dot, trouble } = tile.parts;
    view.camera = camera;
    setText(name, camera.name);
    setText(note, cameraNote(camera));
    setAttribute(dot, "data-tone", TONES[camera.status]);
    setAttribute(button, "aria-label", `${camera.name}, ${STATUS_WORDS[camera.status]}. Enlarge`);
    setAttribute(view.canvas, "aria-label", describe(view));
    showTrouble(trouble, camera);
    if (zoom.camera === camera.name) zoom.update(view);
  }

  // Redraw at most once per screen refresh, and pictures that have stopped, so that their boxes fade.
  function draw(view) {
    if (view.queued || document.hidden) return;
    view.queued = true;
    requestAnimationFrame(() => {
      view.queued = false;
      if (zoom.camera === view.camera.name) paint(zoom.canvas, view, models);
      else if (view.visible && !zoom.camera) paint(view.canvas, view, models);
    });
  }
  setInterval(() => {
    for (const view of views.values()) if (view.bitmap && performance.now() - view.at > 300) draw(view);
  }, 300);

  return {
    update(report) {
      models = new Map(report.queries.map((query) => [query.name, report.models.findIndex((m) => m.name === query.model)]));
      const tiles = sync(wall, report.cameras, (camera) => camera.name, createTile, updateTile);
      const names = new Set(tiles.map((tile) => tile.camera));
      for (const name of views.keys()) if (!names.has(name)) views.delete(name);
      const live = report.cameras.filter((camera) => camera.status === "live").length;
      setText(byId("cameras-note"), `${live} of ${report.cameras.length} live`);
      resubscribe();
    },
    frame(header, bitmap) {
      const view = views.get(header.camera);
      if (!view) return bitmap.close();
      view.bitmap?.close();
      Object.assign(view, { header, bitmap, at: performance.now() });
      return draw(view);
    },
    redraw: () => views.forEach(draw),
  };
}

function zoomDialog(closed) {
  const dialog = byId("zoom");
  const zoom = {
    camera: null,
    canvas: byId("zoom-canvas"),
    open(view) {
      zoom.camera = view.camera.name;
      zoom.canvas.parentElement.style.aspectRatio = `${view.camera.width || 16} / ${view.camera.height || 9}`;
      zoom.update(view);
      dialog.showModal();
    },
    update(view) {
      setText(byId("zoom-name"), view.camera.name);
      setText(byId("zoom-note"), `${cameraNote(view.camera)} · ${view.camera.source}`);
      setAttribute(zoom.canvas, "aria-label", describe(view));
      showTrouble(byId("zoom-trouble"), view.camera);
    },
  };
  dialog.addEventListener("close", () => {
    zoom.camera = null;
    closed();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  byId("zoom-close").addEventListener("click", () => dialog.close());
  return zoom;
}

function cameraNote(camera) {
  const size = camera.width ? `${camera.width}×${camera.height}` : "no picture yet";
  if (camera.status === "live") return `${rate(camera.fps)} fps · ${size} · ${count(camera.skipped)} skipped`;
  return `${STATUS_WORDS[camera.status]} · ${size}`;
}

function showTrouble(node, camera) {
  const fine = camera.status === "live";
  node.hidden = fine;
  if (fine) return;
  const age = camera.last_frame_age_seconds;
  const last = age === null ? "No frame so far." : `Last frame ${seconds(age)} ago.`;
  if (!node.firstChild) node.append(el("strong"), el("span"), el("span"));
  setText(node.children[0], STATUS_WORDS[camera.status]);
  setText(node.children[1], camera.detail);
  setText(node.children[2], last);
}

function describe(view) {
  const found = (view.header?.overlays ?? []).map((overlay) => `${overlay.query}: ${summary(overlay)}`);
  return `${view.camera.name}, ${STATUS_WORDS[view.camera.status]}${found.length ? `. ${found.join(". ")}` : ""}`;
}

function summary(overlay) {
  const { xyxy, class_id: classes, top } = overlay.result;
  if (xyxy) return `${xyxy.length} found`;
  return top?.length ? `${label(overlay, classes[0])} ${Math.round(100 * top[0])} %` : "an embedding";
}

const label = (overlay, index) => overlay.labels[index] ?? `class ${index}`;

// --- drawing ---------------------------------------------------------------------------------

function paint(canvas, view, models) {
  const [context, width, height] = fit(canvas);
  const { header, bitmap, at } = view;
  context.clearRect(0, 0, width, height);
  if (!bitmap || !width) return;
  const scale = Math.min(width / header.width, height / header.height);
  const left = (width - header.width * scale) / 2;
  const top = (height - header.height * scale) / 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, header.width * scale, header.height * scale);
  const since = (performance.now() - at) / 1000;
  const place = { left, top, scale, width, height, taken: [] };
  context.font = "600 11px " + getComputedStyle(canvas).fontFamily;
  context.textBaseline = "middle";
  header.overlays.forEach((overlay) => drawZones(context, overlay, place));
  let line = 0;
  for (const overlay of header.overlays) {
    const age = overlay.age_seconds + since;
    if (age > FADED) continue;
    const ink = colour(modelColour(models.get(overlay.query) ?? -1));
    context.globalAlpha = age < FRESH ? 1 : 1 - (0.85 * (age - FRESH)) / (FADED - FRESH);
    if (overlay.result.xyxy) drawBoxes(context, overlay, place, ink, age > FRESH);
    else if (overlay.result.top?.length) tag(context, summary(overlay), left + 6, [top + 16 + 20 * line++], ink, place);
    context.globalAlpha = 1;
  }
}

function drawZones(context, overlay, place) {
  const { left, top, scale, height } = place;
  for (const [name, polygon] of Object.entries(overlay.zones)) {
    const points = polygon.map(([x, y]) => [left + x * scale, top + y * scale]);
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.fillStyle = "rgb(255 255 255 / 8%)";
    context.fill();
    context.setLineDash([5, 4]);
    context.lineWidth = 1.25;
    context.strokeStyle = "rgb(255 255 255 / 75%)";
    context.stroke();
    context.setLineDash([]);
    const [x, y] = points.reduce((best, point) => (point[1] > best[1] ? point : best));
    tag(context, name, x + 4, [Math.min(y - 10, height - 10)], "rgb(255 255 255 / 85%)", place);
  }
}

function drawBoxes(context, overlay, place, ink, stale) {
  const { xyxy, confidence, class_id: classes, tracker_id: tracks } = overlay.result;
  context.strokeStyle = ink;
  context.lineWidth = 2;
  if (stale) context.setLineDash([4, 3]);
  xyxy.forEach(([x1, y1, x2, y2]) => {
    const [x, y] = [place.left + x1 * place.scale, place.top + y1 * place.scale];
    context.strokeRect(x, y, (x2 - x1) * place.scale, (y2 - y1) * place.scale);
  });
  context.setLineDash([]);
  const roomy = place.width > 300;
  xyxy.forEach(([x1, y1, , y2], i) => {
    const track = tracks && tracks[i] >= 0 ? ` #${tracks[i]}` : "";
    const text = `${label(overlay, classes[i])}${track}${roomy ? `  ${Math.round(100 * confidence[i])} %` : ""}`;
    const [x, above, below] = [x1, y1, y2].map((v) => v * place.scale);
    tag(context, text, place.left + x - 1, [place.top + above - 9, place.top + below + 9, place.top + above + 9], ink, place);
  });
}

// A small filled label that stays inside the picture, at the first of the heights `ys` that is free.
function tag(context, text, x, ys, fill, { left, width, height, taken }) {
  const shown = text.length > 40 ? `${text.slice(0, 39)}…` : text;
  const size = context.measureText(shown).width + 8;
  const x0 = Math.max(left, Math.min(x, width - left - size));
  const inside = ys.map((y) => Math.max(9, Math.min(y, height - 9)));
  const free = (y) => taken.every((other) => Math.abs(y - other.y) >= 16 || x0 > other.right || x0 + size < other.left);
  const y0 = inside.find(free) ?? inside[0];
  taken.push({ y: y0, left: x0, right: x0 + size });
  context.fillStyle = fill;
  context.fillRect(x0, y0 - 8, size, 16);
  context.fillStyle = "#0b0e12";
  context.fillText(shown, x0 + 4, y0 + 0.5);
}
