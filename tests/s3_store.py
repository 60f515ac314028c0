"""An S3-compatible store on a port of this machine: objects by path, ranges, and a refusal of who does not sign.

It speaks the part of the protocol that reading and writing objects needs. moto is a fuller one, and cannot be installed
beside faust: they need different versions of python-dateutil.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

KEY = "a-key"


@contextmanager
def s3_store() -> Iterator[str]:
    """The address of a store that is empty, and gone afterwards."""
    objects: dict[str, bytes] = {}

    class Handler(_Handler):
        held = objects

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in two packets would wait for the first to be acknowledged
    held: dict[str, bytes]

    def do_PUT(self) -> None:  # the name that the base class calls
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._signs():
            self.held[self.path] = content
            self._answer(200)

    def do_POST(self) -> None:
        bucket = self.path.partition("?")[0].rstrip("/")
        keys = re.findall(r"<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self._signs():
            for key in keys:
                self.held.pop(f"{bucket}/{key}", None)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self._signs():
            return
        if self.path not in self.held:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        content = self.held[self.path]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, content)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self._answer(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}")

    def _signs(self) -> bool:
        signed = self.headers.get("Authorization", "").startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/")
        if not signed:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return signed

    def _answer(self, status: int, content: bytes = b"", content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"an-etag"')
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
