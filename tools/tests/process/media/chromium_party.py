"""A browser for the test in browser.rs: Chromium without a window, with its own ICE, DTLS and SRTP.

`chromium_party.py ROLE HERTZ CODEC`. Speaks JSON lines as aiortc_party.py does: takes a description
from standard input, writes its own and then one line for each thing that happens. It says a tone of
HERTZ for ever and reports the strongest tone that it hears.
"""

import http.server
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

PAGE = pathlib.Path(__file__).with_name("chromium_party.html").read_bytes()
OUTPUT = threading.Lock()
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
    # Its addresses are to stand in its description.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
]


class Page(http.server.BaseHTTPRequestHandler):
    """Gives the page out, and carries lines between it and the pipes."""

    def do_GET(self):
        if self.path == "/line":
            line = sys.stdin.readline()
            return self.answer(line.encode() if line else b"null")
        self.answer(PAGE, "text/html")

    def do_POST(self):
        line = self.rfile.read(int(self.headers["content-length"])).decode()
        # Each request has a thread of its own.
        with OUTPUT:
            print(line, flush=True)
        self.answer(b"{}")

    def answer(self, body, kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(role, hertz, codec):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        url = f"http://127.0.0.1:{server.server_port}/#{role},{hertz},{codec}"
        browser = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={profile}", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # A signal may meet another thread; this one looks whether there was one.
            while browser.poll() is None:
                time.sleep(0.1)
        finally:
            browser.kill()
            browser.wait()


main(*sys.argv[1:4])
