import ssl

import harness
import pytest


@pytest.fixture(scope="session")
def secure(model, postgres, certificate):
    """The same server behind TLS."""
    cert, key = certificate
    env = harness.provider_env(model, OZ_TLS_CERT_FILE=str(cert), OZ_TLS_KEY_FILE=str(key))
    with harness.serving(env, postgres=postgres, name="secure") as server:
        yield server


class Line:
    """A raw connection, plain or TLS."""

    def __init__(self, server, context=None, timeout=15.0):
        self.sock = server.socket(timeout)
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.data = b""

    def send(self, raw):
        """Sends all; a peer that closed early (it may: the answer is on its way) is no error."""
        try:
            self.sock.sendall(raw)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def _more(self):
        try:
            piece = self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            piece = b""
        self.data += piece
        return piece

    def answer(self, may_close=False):
        """(status, headers, body) of the next final answer; None when the peer closed without one and may."""
        while True:
            while b"\r\n\r\n" not in self.data:
                if not self._more():
                    assert not self.data, f"half an answer: {self.data[:200]!r}"
                    assert may_close, "closed without an answer"
                    return None
            head, _, rest = self.data.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            version, status, _ = lines[0].split(" ", 2)
            assert version == "HTTP/1.1", lines[0]
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                assert name.lower() not in headers or name.lower() == "vary", f"header twice: {name}"
                headers[name.lower()] = value.strip()
            self.data = rest
            if status == "100":
                continue
            length = int(headers.get("content-length", 0))
            while len(self.data) < length:
                assert self._more(), "the body is cut"
            body, self.data = self.data[:length], self.data[length:]
            return int(status), headers, body

    def closed(self, timeout=5.0):
        """Whether the peer closes without another byte."""
        self.sock.settimeout(timeout)
        try:
            return not self.data and not self._more()
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()


@pytest.fixture(params=["plain", "tls"])
def line(request, certificate):
    """Opens raw connections to the plain or the TLS server."""
    plain = request.param == "plain"
    server = request.getfixturevalue("shared" if plain else "secure")
    context = None
    if not plain:
        context = ssl.create_default_context(cafile=str(certificate[0]))
    server.assert_alive()
    lines = []

    def connect(**options):
        lines.append(Line(server, context, **options))
        return lines[-1]

    connect.server = server
    yield connect
    for opened in lines:
        opened.close()
    server.assert_alive()
