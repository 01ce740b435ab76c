"""For the tests of workers: a server with their settings for scripted peers; a scripted server for the real daemon."""
import harness
import pytest
import worker_daemon
import worker_server
from fleet import FLEET


@pytest.fixture(scope="module")
def shared(postgres):
    """One server a file, for `oz` and `tenant`."""
    with harness.serving(FLEET, postgres=postgres, name="fleet") as server:
        yield server


@pytest.fixture
def client(tenant):
    return tenant


@pytest.fixture
def server(request):
    """What a daemon connects to; native where the file says so."""
    s = worker_server.WorkerServer(native=getattr(request.module, "NATIVE", False))
    yield s
    s.stop()


@pytest.fixture
def start(server):
    """Starts daemons of that server; each is stopped and its folder removed at the end."""
    made = []

    def make(*flags, **options):
        d = worker_daemon.Daemon(server, *flags, **options)
        made.append(d)
        return d.start()
    yield make
    for d in made:
        try:
            d.stop(code=None)
        finally:
            d.remove()
