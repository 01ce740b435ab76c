"""One server for the conformance checks of village-control-plane.md 15; see docs/conformance.md."""
import harness
import pytest
from village import Village
from world import World

SETTINGS = {"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_MAX_RUNNERS_PER_ORG": "2", "OZ_WS_MAX_SUBSCRIPTIONS_PER_CONNECTION": "3",
            "OZ_WS_MAX_CONNECTIONS_PER_USER": "50", "OZ_WS_MAX_MESSAGES_PER_SECOND": "100"}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="conformance") as server:
        yield server


@pytest.fixture(scope="module")
def world(shared):
    made = World(shared)
    yield made
    made.close()


@pytest.fixture
def village(tenant):
    return Village(tenant)
