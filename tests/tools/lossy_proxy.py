"""A TCP proxy in front of the server that loses answers: the request arrives, its answer does not."""
import contextlib
import select
import socket
import ssl
import threading


class LossyProxy:
    """`lose` answers are swallowed (the client's connection is closed once the server has answered), the rest pass."""

    def __init__(self, port, lose=1, tls=None):
        """tls: a context, for a front that speaks TLS."""
        self.tls, self.mistrusted = tls, 0  # mistrusted: connections that ended with an alert
        self.trusted = 0  # TLS connections that came about
        self.target, self.lose, self.lost = ("127.0.0.1", port), lose, 0
        self.lock, self.open, self.refuses = threading.Lock(), set(), False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def cut(self):
        """Every connection, at once; the number."""
        with self.lock:
            cut = list(self.open)
        for s in cut:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        return len(cut)

    def _serve(self, client):
        if self.refuses:
            client.close()
            return
        try:
            if self.tls:
                client.settimeout(20)
                client = self.tls.wrap_socket(client, server_side=True)
                client.settimeout(None)
            with self.lock:
                self.trusted += self.tls is not None
                self.open.add(client)
            self._pass_on(client)
        except OSError as e:
            client.close()
            self.mistrusted += isinstance(e, ssl.SSLError)
        finally:
            with self.lock:
                self.open.discard(client)

    @staticmethod
    def _take_turns(client, server):
        """Both ways in one thread: two must not use a TLS connection at once."""
        while True:
            for source in [client] if client.pending() else select.select([client, server], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (server if source is client else client).sendall(data)

    def _pass_on(self, client):
        with client, socket.create_connection(self.target) as server:
            if self.tls:
                self._take_turns(client, server)
                return
            up = threading.Thread(target=self._pump, args=(client, server), daemon=True)
            up.start()
            with contextlib.suppress(OSError):
                while True:
                    data = server.recv(65536)
                    if not data:
                        break
                    with self.lock:
                        losing = self.lose > 0
                        if losing:
                            self.lose -= 1
                            self.lost += 1
                    if losing:
                        break
                    client.sendall(data)
            for s in (client, server):
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
            up.join(5)

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()

