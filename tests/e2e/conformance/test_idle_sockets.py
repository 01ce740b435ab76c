"""Five thousand idle client sockets within a fixed memory budget (15.11)."""
import concurrent.futures
import contextlib
import resource

import harness
import pytest
import worker_peers
from fleet import memory
from live_peers import PATH, Viewer

N, BUDGET = 5000, 200 << 20  # bytes, of a server with ASan's bookkeeping


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 3 * N
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.engine_free
def test_five_thousand_idle_sockets(many_files, make_server):
    server = make_server({"OZ_WS_MAX_CONNECTIONS_PER_USER": "10000", "OZ_WS_HEARTBEAT_INTERVAL_MS": "60000",
                          "OZ_WS_CONNECTION_TIMEOUT_MS": "120000"})
    before = memory(server)
    with concurrent.futures.ThreadPoolExecutor(16) as pool, contextlib.ExitStack() as closing:
        for sock, _ in pool.map(lambda i: worker_peers.handshake(server.port, PATH, f"idle-{i % 50}", timeout=30), range(N)):
            closing.callback(sock.close)
        used = memory(server) - before
        assert used < BUDGET, f"{used / N:.0f} bytes for each"
        with Viewer(server, "alive") as viewer:
            viewer.sync()
    harness.eventually(lambda: "\nmuster_ws_clients 0\n" in server.client().get("/metrics").text, timeout=20, what="they are gone")
