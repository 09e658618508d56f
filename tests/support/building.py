"""Clients in the making: tests/prepare.py builds them beside what needs none yet."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from support import clients
from support.machine import CHECKOUT


class Building:
    """Clients that are found or built one after the other, while this process goes on.

    Leaving the `with` ends what is still being built, and removes what it has half made.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.ready: set[str] = set()
        # Lines that prepare.py says, and a None after the last one of each client.
        self.said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process: subprocess.Popen[str] | None = None
        self.lock, self.ended = threading.Lock(), False
        self.thread = threading.Thread(target=self._all)

    def __enter__(self) -> Building:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.ended = True
            if self.process and self.process.poll() is None:
                # prepare.py and its go, which may have inherited that SIGINT is ignored.
                os.killpg(self.process.pid, signal.SIGTERM)
        self.thread.join()

    def wait_for(self, name: str, show: Callable[[str], None]) -> None:
        """Return when a client is there, or known not to be had; show how it goes meanwhile."""
        while name not in self.ready:
            news = [self.said.get()]
            while not self.said.empty():
                news.append(self.said.get())
            latest = ""
            for line in news:
                if line is None:
                    self.ready.add(self.names[len(self.ready)])
                elif name not in self.ready:
                    latest = line
            # What was said before that, while nobody looked, is of no interest now.
            if latest:
                show(latest)
        clients.find.cache_clear()

    def _all(self) -> None:
        for name in self.names:
            with self.lock:
                if self.ended:
                    return
                self.process = subprocess.Popen(
                    [sys.executable, str(CHECKOUT / "tests/prepare.py"), "--demo", name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    process_group=0,
                )
            assert self.process.stdout
            for line in self.process.stdout:
                self.said.put(line.strip())
            self.process.wait()
            self.said.put(None)
