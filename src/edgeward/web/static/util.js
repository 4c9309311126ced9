// Numbers for people, and the few DOM helpers that all views share. Text only ever enters the page
// through textContent and attributes: names of cameras and models are not to be trusted.

const grouped = new Intl.NumberFormat("en");

export const count = (n) =>
  n < 1e6 ? grouped.format(n) : n < 1e9 ? `${(n / 1e6).toPrecision(4)} M` : `${(n / 1e9).toPrecision(4)} G`;

export const rate = (n) => (n >= 100 ? n.toFixed(0) : n.toFixed(1));

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let i = 0;
  while (Math.abs(n) >= 1024 && i < units.length - 1) {
    n /= 1024;
    i += 1;
  }
  return `${i === 0 || n >= 1000 ? n.toFixed(0) : Number(n.toPrecision(3))} ${units[i]}`;
}

// Rounded down, so that 100 % means all.
export const percent = (fraction) => (fraction === null ? "–" : `${(Math.floor(fraction * 1000) / 10).toFixed(1)} %`);

export function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 1) return `${Math.round(s * 100) * 10} ms`;
  return s < 10 ? `${s.toFixed(1)} s` : span(s);
}

export function span(s) {
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Keep one child of `parent` per item, in order, reusing nodes by key. Returns the nodes.
export function sync(parent, items, key, create, update) {
  const known = parent.nodesByKey ?? (parent.nodesByKey = new Map());
  const wanted = new Set(items.map(key));
  for (const [name, node] of known) {
    if (!wanted.has(name)) {
      node.remove();
      known.delete(name);
    }
  }
  return items.map((item, i) => {
    let node = known.get(key(item));
    if (!node) known.set(key(item), (node = create(item)));
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
    update(node, item, i);
    return node;
  });
}

const SVG = "http://www.w3.org/2000/svg";

export function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 60 18");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "polyline"));
  return svg;
}

// Oldest value at the left edge, newest at the right; the scale starts at zero.
export function drawSparkline(svg, values) {
  const top = Math.max(...values, 1e-9) * 1.1;
  const last = Math.max(values.length - 1, 1);
  const points = values.map((v, i) => `${((60 * i) / last).toFixed(1)},${(17 - (16 * v) / top).toFixed(1)}`);
  svg.firstChild.setAttribute("points", points.join(" "));
}

// Colours as the stylesheet has them in the present theme, for canvases.
const colours = new Map();
export const forgetColours = () => colours.clear();
export function colour(name) {
  if (!colours.has(name)) {
    const probe = document.body.appendChild(el("i", { hidden: "" }));
    probe.style.color = `var(--${name})`;
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

const MODEL_COLOURS = 8;
export const modelColour = (index) => `m${(index < 0 ? MODEL_COLOURS - 1 : index) % MODEL_COLOURS}`;

// Match a canvas's pixels to its place on the screen; returns [context, width, height] in CSS pixels.
export function fit(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [context, width, height];
}
