"""Sends datagrams, each from a port of its own, and counts by whom they are answered.

Asks again where no answer comes: a datagram that is too big for the way is lost, and only the
next one goes in smaller fragments. Prints one JSON object.
"""

import argparse
import collections
import json
import socket


def ask(options):
    """The name that comes back, or none."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        # Not connected: an answer from another address than the VIP must be seen to be one.
        sock.settimeout(options.timeout)
        for _ in range(options.tries):
            sock.sendto(b"x" * options.size, (options.host, options.port))
            try:
                answer, sender = sock.recvfrom(65535)
            except TimeoutError:
                continue
            if (sender[0], sender[1]) != (options.host, options.port):
                return f"from {sender[0]}:{sender[1]}"
            return answer.decode()
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", help="an IP address")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--size", type=int, default=10, help="bytes of a datagram")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=0.5, help="seconds for each try")
    options = parser.parse_args()
    answers = collections.Counter(ask(options) for _ in range(options.count))
    lost = answers.pop(None, 0)
    print(json.dumps({"answers": answers, "lost": lost}))


main()
