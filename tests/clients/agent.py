"""An agent that answers every connection with the line in a file, as HAProxy's agent check has it.

The file is read anew each time, so that a test can change what it says. While there is none, the
connection is taken and left without an answer.
"""

import argparse
import pathlib
import socketserver
import time


class Agent(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            line = self.server.says.read_text()
        except FileNotFoundError:
            time.sleep(30)
            return
        self.request.sendall(line.encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        """The other side ends with a reset, which is no error of ours."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--says", type=pathlib.Path, required=True, help="the file")
    parser.add_argument("--ready", type=pathlib.Path, required=True, help="made once it listens")
    options = parser.parse_args()
    server = Server((options.address, options.port), Agent)
    server.says = options.says
    options.ready.touch()
    server.serve_forever()


main()
