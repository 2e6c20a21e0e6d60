"""A real local HTTP server that can drop connections, change a file, ignore ranges and misreport sizes."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE_BYTES = 16 * 1024


@dataclass
class FileServer:
    """One file served at every path below `/data`, and how the server behaves and misbehaves."""

    content: bytes = b""
    etag: str | None = '"one"'
    last_modified: str | None = None
    knows_ranges: bool = True
    tells_size: bool = True
    declared_bytes: int | None = None
    wrong_ranges: bool = False
    break_after: list[int] = field(default_factory=list)  # bytes before each of the next responses breaks off
    statuses: list[int] = field(default_factory=list)  # of the next responses
    seconds_per_piece: float = 0.0
    ranges: list[str | None] = field(default_factory=list)  # Range headers of the GET requests
    address: str = ""

    def url(self, name: str) -> str:
        return f"{self.address}/data/{name}"


class _Handler(BaseHTTPRequestHandler):
    site: FileServer

    def do_GET(self) -> None:
        site = self.site
        range_header = self.headers.get("Range")
        site.ranges.append(range_header)
        if site.statuses or not self.path.startswith("/data"):
            self.send_error(site.statuses.pop(0) if site.statuses else 404)
            return
        begin = self._begin(range_header)
        if begin is not None and begin >= len(site.content):
            self.send_error(416)
            return
        self._head(begin)
        self._send(site.content[begin or 0 :])

    def do_HEAD(self) -> None:
        if self.path.startswith("/data"):
            self._head(None)
        else:
            self.send_error(404)

    def _begin(self, range_header: str | None) -> int | None:
        """First byte of the requested range if it can be honoured; None for the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-", range_header or "")
        if not match or not self.site.knows_ranges:
            return None
        if self.headers.get("If-Range") not in (None, self.site.etag, self.site.last_modified):
            return None
        return int(match[1])

    def _head(self, begin: int | None) -> None:
        site, total = self.site, len(self.site.content)
        self.send_response(200 if begin is None else 206)
        if begin is not None:
            self.send_header("Content-Range", f"bytes {begin + site.wrong_ranges}-{total - 1}/{total}")
        if site.tells_size:
            self.send_header("Content-Length", str(site.declared_bytes or total - (begin or 0)))
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.last_modified:
            self.send_header("Last-Modified", site.last_modified)
        self.end_headers()

    def _send(self, content: bytes) -> None:
        stop = self.site.break_after.pop(0) if self.site.break_after else None
        for start in range(0, len(content[:stop]), _PIECE_BYTES):
            try:
                self.wfile.write(content[:stop][start : start + _PIECE_BYTES])
            except OSError:  # the client disconnected
                return
            time.sleep(self.site.seconds_per_piece)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[FileServer]:
    site = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
