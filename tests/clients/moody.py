"""An HTTP server that answers with a name, as quickly, seldom or badly as a file says.

The file holds JSON: `delay`, in seconds, before an answer; `fails`, the part of answers that are
a 500; `mute`, whether connections are accepted and never answered; `static_health`, whether none
of that is true of `/healthz`; `at_once`, how many requests are worked on at the same time, all where
it is 0. It is read again whenever it changes, so that a test can change the server's mood while it
runs.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random


class Mood:
    def __init__(self, path):
        self.path = path
        self.seen = None
        self.delay, self.fails, self.mute, self.static_health = 0.0, 0.0, False, False
        self.places = contextlib.nullcontext()

    def look(self):
        seen = os.stat(self.path).st_mtime_ns
        if seen != self.seen:
            mood = json.loads(self.path.read_text())
            self.delay, self.fails, self.mute = mood["delay"], mood["fails"], mood["mute"]
            self.static_health = mood["static_health"]
            at_once = mood["at_once"]
            self.places = asyncio.Semaphore(at_once) if at_once else contextlib.nullcontext()
            self.seen = seen
        return self


def answer(status, body):
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def serve(options):
    mood = Mood(options.mood)
    rng = random.Random(options.seed)

    async def talk(reader, writer):
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                mood.look()
                bad = False
                if not (mood.static_health and request.startswith(b"GET /healthz ")):
                    if mood.mute:
                        await asyncio.sleep(3600)
                    async with mood.places:
                        await asyncio.sleep(mood.delay)
                    bad = rng.random() < mood.fails
                writer.write(answer("500 Bad Mood" if bad else "200 OK", options.name + "\n"))
                await writer.drain()
                if b"\r\nconnection: close\r\n" in request.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, ["0.0.0.0", "::"], options.port, backlog=4096)
    options.ready.touch()
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the answer")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--mood", type=pathlib.Path, required=True, help="the file")
    parser.add_argument("--ready", type=pathlib.Path, required=True, help="made once it listens")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))


main()
