"""The program behind netlab.Cables: moves IP packets between pairs of TUN devices as it is told on standard input, a JSON
object a line; each is answered by the link's counters."""
import heapq
import itertools
import json
import os
import random
import select
import sys
import time

QUEUE_MAX = 4096  # packets under way on one link, as a real one drops what is too much


class Link:
    def __init__(self, fds):
        self.fds, self.under_way = fds, 0
        self.how = {"cut": False, "delay_ms": 0, "jitter_ms": 0, "duplicate": 0.0, "reorder": 0.0}
        self.counts = {"packets": 0, "dropped": 0, "delayed": 0, "duplicated": 0, "reordered": 0}


class Wire:
    def __init__(self, pairs):
        self.links = [Link(p) for p in pairs]
        self.other = {fd: (link, link.fds[1 - i]) for link in self.links for i, fd in enumerate(link.fds)}
        self.heap, self.order = [], itertools.count()
        self.rng = random.Random()

    def write(self, fd, packet):
        try:
            os.write(fd, packet)
        except OSError:
            pass  # the interface is down, or full: lost

    def packet(self, link, fd, packet, now):
        how, n = link.how, link.counts
        n["packets"] += 1
        if how["cut"] or link.under_way >= QUEUE_MAX:
            n["dropped"] += 1
            return
        copies = 1
        if self.rng.random() < how["duplicate"]:
            copies, n["duplicated"] = 2, n["duplicated"] + 1
        for _ in range(copies):
            wait = how["delay_ms"] + self.rng.uniform(-1, 1) * how["jitter_ms"]
            if self.rng.random() < how["reorder"]:
                wait, n["reordered"] = wait + self.rng.uniform(5, 60), n["reordered"] + 1
            if wait <= 0:
                self.write(fd, packet)
            else:
                n["delayed"] += 1
                link.under_way += 1
                heapq.heappush(self.heap, (now + wait / 1000, next(self.order), link, fd, packet))

    def due(self, now):
        while self.heap and self.heap[0][0] <= now:
            _, _, link, fd, packet = heapq.heappop(self.heap)
            link.under_way -= 1
            if link.how["cut"]:
                link.counts["dropped"] += 1
            else:
                self.write(fd, packet)

    def run(self):
        poll = select.poll()
        for fd in (0, *self.other):
            poll.register(fd, select.POLLIN)
        text = b""
        while True:
            wait = None if not self.heap else max(0.0, (self.heap[0][0] - time.monotonic()) * 1000)
            ready = poll.poll(wait)
            now = time.monotonic()
            for fd, _ in ready:
                if fd == 0:
                    got = os.read(0, 65536)
                    if not got:
                        return
                    *lines, text = (text + got).split(b"\n")
                    for line in lines:
                        told = json.loads(line)
                        link = self.links[told.pop("link")]
                        link.how.update(told)
                        sys.stdout.write(json.dumps(link.counts) + "\n")
                        sys.stdout.flush()
                    continue
                link, to = self.other[fd]
                for _ in range(64):
                    try:
                        packet = os.read(fd, 65536)
                    except OSError:
                        break
                    self.packet(link, to, packet, now)
            self.due(time.monotonic())


if __name__ == "__main__":
    Wire([tuple(map(int, word.split(":"))) for word in sys.argv[1:]]).run()
