"""Stands in for `python -m goatherd` in tests of `up`: parts without what they are made of.

What it does is set by environment variables: `FAKE_BROKEN` names a command that fails at once, `FAKE_DEAF`
one that does not listen to SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHECKS = ("temporal", "store", "workers.actors", "workers.inference", "workers.store", "model")


class Api(BaseHTTPRequestHandler):
    answers = 0

    def do_GET(self) -> None:
        if self.path == "/":
            row = {"method": "GET", "path": "/chat", "summary": "The caller's sessions"}
            self._answer(200, {"routes": [row]})
            return
        Api.answers += 1
        ready = Api.answers > 3
        body = {"checks": {name: {"ok": ready, "detail": "" if ready else "loading …"} for name in CHECKS}}
        self._answer(200 if ready else 503, body)

    def _answer(self, status: int, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    command = sys.argv[1]
    if command == os.environ.get("FAKE_BROKEN"):
        sys.exit(f"{command} is broken")
    if command == os.environ.get("FAKE_DEAF"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if command == "api":
        server = ThreadingHTTPServer((os.environ["GOATHERD_HOST"], int(os.environ["GOATHERD_PORT"])), Api)
        server.serve_forever()
    threading.Event().wait()


if __name__ == "__main__":
    main()
