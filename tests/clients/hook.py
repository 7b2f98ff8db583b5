"""A receiver of webhooks that fails or hangs when told to, and writes down what it took.

The mood's file holds one word: a status code to answer with, or `hang`. It is read at each
request. What was answered with 200 is appended to `--taken`, a line of JSON for each request: the
header fields, by lower-case name, and the body.
"""

import argparse
import http.server
import json
import pathlib
import threading
import time


def handler(options):
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            mood = options.mood.read_text().strip()
            if mood == "hang":
                time.sleep(3600)
            status = int(mood)
            with lock:
                if status == 200:
                    fields = {name.lower(): value for name, value in self.headers.items()}
                    with options.taken.open("a") as taken:
                        taken.write(json.dumps({"headers": fields, "body": body}) + "\n")
                else:
                    with options.refused.open("a") as refused:
                        refused.write(f"{status}\n")
            answer = b"ok" if status == 200 else b"not in the mood"
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mood", type=pathlib.Path, required=True, help="the file")
    parser.add_argument("--taken", type=pathlib.Path, required=True, help="what was taken")
    parser.add_argument("--refused", type=pathlib.Path, required=True, help="what was not")
    parser.add_argument("--ready", type=pathlib.Path, required=True, help="made once it listens")
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), handler(options))
    server.daemon_threads = True
    options.ready.touch()
    server.serve_forever()


main()
