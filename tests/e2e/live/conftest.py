import harness
import pytest
from live_peers import LiveWorker, Viewer
from village import Village

SETTINGS = {"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_WS_MAX_CONNECTIONS_PER_USER": "20"}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="live") as server:
        yield server


@pytest.fixture(scope="module")
def worker(shared):
    """Takes the sessions of all tests of a file; each test answers for its own."""
    with LiveWorker(shared, capacity=1000) as peer:
        yield peer


@pytest.fixture
def village(tenant):
    return Village(tenant)


@pytest.fixture
def stranger(other):
    return Village(other)


@pytest.fixture
def view(oz, tenant):
    """Opens viewers of the tenant (or of another token), and closes them."""
    opened = []

    def open_one(token=None, **options):
        opened.append(Viewer(oz, token or tenant.token, **options))
        return opened[-1]
    yield open_one
    for viewer in opened:
        viewer.close()
