// The live connection: one WebSocket that reconnects by itself. Each message is acknowledged only
// once it has been dealt with, so a slow page gets fewer frames and never a backlog.

const LONGEST_WAIT = 5000;
const SILENCE = 6000;

export class Live {
  // handlers: state(message), frame(header, bitmap), link({connected, detail, retryAt})
  constructor(handlers) {
    this.handlers = handlers;
    this.subscription = null;
    this.wait = 500;
    this.connect();
    setInterval(() => this.watch(), 1000);
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api/v1/live`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onopen = () => {
      if (this.subscription) this.send(this.subscription);
    };
    socket.onmessage = (event) => this.receive(socket, event.data);
    socket.onclose = (event) => {
      if (socket === this.socket) this.lost(event.reason);
    };
  }

  receive(socket, data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      this.frame(socket, data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type !== "state") return;
    this.wait = 500;
    this.handlers.link({ connected: true });
    this.handlers.state(message);
    this.acknowledge(socket, {});
  }

  async frame(socket, buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    try {
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }));
      this.handlers.frame(header, bitmap);
    } catch {
      // A picture that cannot be decoded is worth no more than the next one.
    }
    this.acknowledge(socket, { camera: header.camera });
  }

  acknowledge(socket, what) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "ack", ...what }));
  }

  subscribe(cameras, maxWidth, fps) {
    const wanted = { type: "subscribe", cameras, max_width: Math.max(16, Math.min(4096, maxWidth)), fps };
    if (JSON.stringify(wanted) === JSON.stringify(this.subscription)) return;
    this.subscription = wanted;
    if (this.socket.readyState === WebSocket.OPEN) this.send(wanted);
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  watch() {
    if (this.timer === null && performance.now() - this.heard > SILENCE) this.lost("");
  }

  lost(reason) {
    const old = this.socket;
    old.onclose = old.onmessage = old.onopen = null;
    old.close();
    const wait = this.wait * (0.8 + 0.4 * Math.random());
    this.wait = Math.min(this.wait * 1.7, LONGEST_WAIT);
    this.timer = setTimeout(() => this.connect(), wait);
    this.handlers.link({ connected: false, detail: reason, retryAt: performance.now() + wait });
  }

  retry() {
    if (this.timer !== null) this.connect();
  }
}
