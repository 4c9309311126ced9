"""Network cameras on this machine for the tests: MJPEG over HTTP, and RTSP with MPEG-4 over interleaved TCP."""

from __future__ import annotations

import io
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2
from vision_makevideo import numbered


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HttpCamera:
    """Serves numbered JPEGs at `fps` as multipart/x-mixed-replace; `frames` of them, then says nothing more."""

    def __init__(self, port: int, fps: float = 50, frames: int = 1 << 30) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                while not camera.dead.is_set():
                    if number < frames:
                        data = cv2.imencode(".jpg", numbered(number, 64, 48))[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        try:
                            self.wfile.write(head.encode() + data + b"\r\n")
                        except OSError:
                            return
                        number += 1
                    camera.dead.wait(1 / fps)
                self.connection.close()

            def log_message(self, *args: object) -> None:
                pass

        self.port = port
        self.requests = 0
        self.dead = threading.Event()
        self.url = f"http://user:secret@127.0.0.1:{port}/video"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.dead.set()
        self._server.shutdown()
        self._server.server_close()


class SilentPeer:
    """Accepts connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class RtspCamera:
    """Just enough of RFC 2326 for one client at a time: RTP (RFC 3550) with MPEG-4 (RFC 6416) in the RTSP connection."""

    def __init__(self, port: int = 0, fps: float = 50, silent_after: int = 1 << 30) -> None:
        self.dead = threading.Event()
        self.methods: list[str] = []
        self._fps = fps
        self._silent_after = silent_after
        self._config, self._packets = self._encoded()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._socket.settimeout(0.1)
        self.url = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/live"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.dead.set()
        self._thread.join(5)
        self._socket.close()

    def _encoded(self) -> tuple[str, list[bytes]]:
        container = av.open(io.BytesIO(), "w", format="mp4")
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 1
        packets = []
        for number in range(16):
            frame = av.VideoFrame.from_ndarray(numbered(number, 64, 48), format="bgr24")
            frame.pts = number
            packets += [bytes(packet) for packet in stream.encode(frame)]
        packets += [bytes(packet) for packet in stream.encode()]
        return bytes(stream.codec_context.extradata).hex(), packets

    def _serve(self) -> None:
        while not self.dead.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                continue
            with connection:
                try:
                    self._converse(connection)
                except OSError:
                    continue

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        pending = b""
        while not self.dead.is_set():
            while b"\r\n\r\n" not in pending:
                data = connection.recv(4096)
                if not data:
                    return
                pending += data
            request, _, pending = pending.partition(b"\r\n\r\n")
            method = request.split(b" ", 1)[0].decode()
            self.methods.append(method)
            sequence = re.search(rb"CSeq: (\d+)", request).group(1).decode()
            head, body = self._answer(method, request.decode())
            text = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
            connection.sendall(text.encode())
            if method == "PLAY":
                self._play(connection)
                return

    def _answer(self, method: str, request: str) -> tuple[str, str]:
        if method == "OPTIONS":
            return "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""
        if method == "DESCRIBE":
            sdp = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 MP4V-ES/90000\r\n"
                f"a=fmtp:96 profile-level-id=1;config={self._config}\r\na=control:track1\r\n"
            )
            return "Content-Type: application/sdp\r\n", sdp
        if method == "SETUP":
            assert "TCP" in request, request
            return "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""
        return "Session: 1\r\n", ""

    def _play(self, connection: socket.socket) -> None:
        for number in range(1 << 30):
            if self.dead.is_set():
                return
            if number < self._silent_after:
                header = struct.pack(">BBHII", 0x80, 0x80 | 96, number & 0xFFFF, (number * 3600) & 0xFFFFFFFF, 7)
                packet = header + self._packets[number % len(self._packets)]
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(1 / self._fps)
