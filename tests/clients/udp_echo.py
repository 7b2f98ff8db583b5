"""Answers every datagram with a name, from the address that it was sent to."""

import argparse
import pathlib
import selectors
import socket


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the answer")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready", type=pathlib.Path, help="file to make once all is bound")
    parser.add_argument("addresses", nargs="+", help="local addresses to bind")
    options = parser.parse_args()

    selector = selectors.DefaultSelector()
    for address in options.addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((address, options.port))
        selector.register(sock, selectors.EVENT_READ)
    if options.ready:
        options.ready.touch()

    answer = options.name.encode()
    while True:
        for key, _ in selector.select():
            _, client = key.fileobj.recvfrom(65535)
            key.fileobj.sendto(answer, client)


main()
