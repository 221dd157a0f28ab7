"""A server on loopback that serves files from memory, and can lose connections."""

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub


class Server(ThreadingHTTPServer):
    """Serves `files` from memory; `log` has (method, path, first byte asked for)."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.log = files, []
        self.cut_at = None  # bytes after which a connection is lost; then nothing is served any more
        self.broken = self.ignores_range = False
        self.headers = {}  # further ones by path, such as ETag
        self.delay = 0.0  # seconds before a body


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.respond(with_body=False)

    def do_GET(self):
        self.respond(with_body=True)

    def respond(self, with_body):
        server, data = self.server, self.server.files.get(self.path)
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.log.append((self.command, self.path, int(found[1]) if found else 0))
        if data is None or server.broken:
            return self.send_error(503 if server.broken else 404)
        start = int(found[1]) if found and not server.ignores_range else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in server.headers.get(self.path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            time.sleep(server.delay)
            self.wfile.write(data[start : server.cut_at])
            server.broken = server.cut_at is not None


@contextmanager
def serving(files, monkeypatch, cache):
    """A server in a thread, and this process a client whose torch cache is `cache`; its address is `server.url`."""
    server = Server(dict(files))
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    huggingface_hub.utils.close_session()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        huggingface_hub.utils.close_session()
