"""Opens connections from the ports that it is told, keeps them, and asks over each who answers.

For each line on standard input it asks once over every connection, and prints one JSON object: by
port, the name that came back, or what failed. It opens what is not open yet.
"""

import argparse
import json
import socket
import sys


def connect(options, port):
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(options.timeout)
    sock.bind(("", port))
    sock.connect((options.host, options.port))
    return sock


def ask(sock, host):
    """The body of the answer: the backend's name."""
    sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError("closed")
        answer += more
    head, body = answer.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += sock.recv(65536)
    return body.decode().strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", help="an IP address")
    parser.add_argument("port", type=int)
    parser.add_argument("--first", type=int, required=True, help="the first port to come from")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--timeout", type=float, default=5.0)
    options = parser.parse_args()
    kept = {}
    for _ in sys.stdin:
        answers = {}
        for port in range(options.first, options.first + options.count):
            try:
                if port not in kept:
                    kept[port] = connect(options, port)
                answers[port] = ask(kept[port], options.host)
            except OSError as error:
                answers[port] = f"failed: {error}"
        print(json.dumps(answers), flush=True)


main()
