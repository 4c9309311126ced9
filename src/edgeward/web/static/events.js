// Recent events, newest first, with their pictures as they scroll into view.

import { byId, el, setText, span, sync } from "./util.js";

const KEPT = 200;
const PAGE = 50;
const TONES = { appeared: "info", entered: "good", left: "idle", camera: "warn", model: "info", box: "info" };

export function events() {
  const list = byId("events");
  const more = byId("events-more");
  let items = [];
  let kept = KEPT;

  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      const oldest = items.at(-1)?.id ?? 0;
      const response = await fetch(`/api/v1/events?limit=${PAGE}&before_id=${oldest}`);
      const older = response.ok ? await response.json() : [];
      kept += older.length;
      add(older);
      if (older.length < PAGE) more.hidden = true;
      update();
    } catch {
      // The banner already says that the box is gone.
    } finally {
      more.disabled = false;
    }
  });

  function add(fresh) {
    const byNumber = new Map([...items, ...fresh].map((item) => [item.id, item]));
    items = [...byNumber.values()].sort((a, b) => b.id - a.id).slice(0, kept);
  }

  function update() {
    setText(byId("events-note"), items.length ? `${items.length} newest` : "none yet");
    more.hidden ||= items.length === 0;
    const now = Date.now() / 1000;
    sync(list, items, (item) => item.id, create, (node, item) => {
      const age = Math.max(0, now - item.at);
      setText(node.when, `${item.camera ? `${item.camera} · ` : ""}${age < 2 ? "now" : `${span(age)} ago`}`);
    });
  }

  return {
    add,
    update,
    reset() {
      items = [];
      kept = KEPT;
      more.hidden = false;
    },
  };
}

function create(item) {
  const picture = el("span", { class: "thumb" });
  if (item.thumbnail) {
    const source = `/api/v1/events/${encodeURIComponent(item.id)}/thumbnail.jpg`;
    const image = el("img", { src: source, alt: "", loading: "lazy", decoding: "async", width: "44", height: "44" });
    image.addEventListener("error", () => image.remove());
    picture.append(image);
  } else {
    picture.append(el("i", { class: "dot", "data-tone": TONES[item.kind] ?? "idle", "aria-hidden": "true" }));
  }
  const when = el("time", { class: "note", datetime: new Date(item.at * 1000).toISOString() });
  const node = el("li", {}, picture, el("span", { class: "event-text" }, el("span", { text: item.text }), when));
  node.when = when;
  return node;
}
