"""Steady HTTP traffic that notices every failure.

Open loop: requests start at their time, however slow the answers are. Each goes over a new
connection; beside them a few long-lived connections each send a request now and then. Writes a
JSON line of running totals every second, a last one at the end, and, if asked, one for each
request to a file. Ends after the given time or number of requests, or at SIGTERM or SIGINT.
"""

import argparse
import array
import asyncio
import collections
import errno
import ipaddress
import json
import random
import signal
import time


class Tally:
    """Totals of one kind of connection."""

    def __init__(self):
        self.sent = 0
        self.by_backend = collections.Counter()
        self.by_error = collections.Counter()

    def report(self):
        return {
            "sent": self.sent,
            "ok": self.by_backend.total(),
            "failed": self.by_error.total(),
            "by_backend": dict(self.by_backend),
            "by_error": dict(self.by_error),
        }


class BadAnswer(Exception):
    """The server answered, but not as it should."""


def error_class(error):
    match error:
        case BadAnswer():
            return str(error)
        case TimeoutError() | asyncio.TimeoutError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError() | BrokenPipeError():
            return "reset"
        case asyncio.IncompleteReadError():
            return "closed"
        case OSError():
            return errno.errorcode.get(error.errno, "os-error").lower()
        case _:
            return "garbled"


class Client:
    def __init__(self, options):
        self.options = options
        self.tallies = {"new": Tally(), "kept": Tally()}
        self.latencies = array.array("d")
        self.records = open(options.records, "w") if options.records else None
        self.stopping = asyncio.Event()
        self.pending = set()
        self.client = None
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.head = f"GET {options.path} HTTP/1.1\r\nHost: {host}\r\n"

    async def exchange(self, reader, writer, connection):
        """Sends a request and answers the name in the body of the answer."""
        writer.write(f"{self.head}Connection: {connection}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        code = int(status.split()[1])
        if code != 200:
            raise BadAnswer(f"status-{code}")
        length = next(int(f.split(":")[1]) for f in fields if f.lower().startswith("content-length:"))
        return (await reader.readexactly(length)).decode().strip()

    def source(self):
        """Where the next connection comes from; nothing leaves it to the kernel."""
        if self.options.sources:
            return random.choice(self.options.sources), 0
        if not self.options.crowd:
            return None
        # Clumps of geometric size: each connection may be a client's last.
        if self.client is None or random.random() * self.options.clump < 1:
            crowd = self.options.crowd
            self.client = str(crowd[random.randrange(1, crowd.num_addresses - 1)])
        return self.client, 0

    async def once(self):
        """One request over a connection of its own, which the server closes."""
        source = self.source()
        reader, writer = await asyncio.open_connection(self.options.host, self.options.port,
                                                       local_addr=source)
        try:
            name = await self.exchange(reader, writer, "close")
            await reader.read()
            return name
        finally:
            writer.close()

    async def timed(self, kind, number, request, known=None):
        """Runs a request and keeps the books; answers the backend's name unless it failed."""
        started, clock = time.time(), time.perf_counter()
        self.tallies[kind].sent += 1
        backend, failure = known, None
        try:
            backend = await asyncio.wait_for(request, self.options.timeout)
            if known and backend != known:
                raise BadAnswer("moved")
        except (OSError, EOFError, BadAnswer, ValueError, LookupError, StopIteration,
                asyncio.TimeoutError, asyncio.LimitOverrunError) as error:
            failure = error_class(error)
        took = (time.perf_counter() - clock) * 1000
        if failure:
            self.tallies[kind].by_error[failure] += 1
        else:
            self.tallies[kind].by_backend[backend] += 1
            if kind == "new":
                self.latencies.append(took)
        if self.records:
            record = {"at_ms": started * 1000, "took_ms": took, "kind": kind,
                      "connection": number, "backend": backend, "error": failure}
            self.records.write(json.dumps(record) + "\n")
        return None if failure else backend

    async def pause_until(self, moment):
        """Sleeps until a moment; true where the end came first."""
        delay = moment - time.monotonic()
        if delay <= 0:
            return self.stopping.is_set()
        try:
            await asyncio.wait_for(self.stopping.wait(), delay)
        except asyncio.TimeoutError:
            return False
        return True

    async def make_new(self):
        start, number = time.monotonic(), 0
        while self.options.rate and number != self.options.limit:
            if await self.pause_until(start + number / self.options.rate):
                return
            task = asyncio.create_task(self.timed("new", number, self.once()))
            self.pending.add(task)
            task.add_done_callback(self.pending.discard)
            number += 1
        if number and number == self.options.limit:
            self.stopping.set()

    async def keep(self, number):
        """Sends requests over one connection; opens another only when that one has failed."""
        reader = writer = known = None

        async def request():
            nonlocal reader, writer
            if writer is None:
                reader, writer = await asyncio.open_connection(self.options.host, self.options.port)
            return await self.exchange(reader, writer, "keep-alive")

        start, turn = time.monotonic(), number / max(1, self.options.kept)
        while not await self.pause_until(start + turn * self.options.kept_interval):
            known = await self.timed("kept", number, request(), known)
            turn += 1
            if known is None and writer:
                writer.close()
                writer = None
        if writer:
            writer.close()

    def say(self, last=False):
        fast = sorted(self.latencies) if last else []
        def quantile(q):
            return fast[min(len(fast) - 1, int(q * len(fast)))] if fast else None
        latency = {"p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "max_ms": quantile(1)}
        tallies = {kind: tally.report() for kind, tally in self.tallies.items()}
        print(json.dumps({"at_ms": time.time() * 1000, "last": last, **tallies,
                          "latency": latency}), flush=True)

    async def tell(self):
        start, second = time.monotonic(), 1
        while not await self.pause_until(start + second):
            self.say()
            second += 1

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.call_later(self.options.duration, self.stopping.set)
        await asyncio.gather(self.make_new(), self.tell(),
                             *(self.keep(number) for number in range(self.options.kept)))
        if self.pending:
            await asyncio.wait(self.pending)
        if self.records:
            self.records.close()
        self.say(last=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", help="an IP address")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--path", default="/")
    parser.add_argument("--rate", type=float, default=100, help="new connections a second")
    parser.add_argument("--kept", type=int, default=0, help="long-lived connections")
    parser.add_argument("--kept-interval", type=float, default=0.2,
                        help="seconds between two requests on a long-lived connection")
    parser.add_argument("--duration", type=float, required=True, help="seconds")
    parser.add_argument("--sources", nargs="*", metavar="ADDRESS",
                        help="addresses that new connections come from, each as likely")
    parser.add_argument("--crowd", type=ipaddress.ip_network, metavar="NETWORK",
                        help="a network of clients, of which one opens some connections, then another")
    parser.add_argument("--clump", type=float, default=1, help="how many on average")
    parser.add_argument("--limit", type=int, default=-1, help="at most so many new connections")
    parser.add_argument("--timeout", type=float, default=2, help="seconds for a whole request")
    parser.add_argument("--records", help="file for a JSON line about each request")
    options = parser.parse_args()

    async def start():
        await Client(options).run()

    asyncio.run(start())


main()
