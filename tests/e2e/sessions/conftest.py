import harness
import pytest
from village import Village


@pytest.fixture(scope="module")
def shared(postgres):
    """One server a file; a tenant has so many sessions that limits are seen only where they are meant."""
    with harness.serving({"OZ_MAX_SESSIONS_PER_ORG": "500"}, postgres=postgres, name="sessions") as server:
        yield server


@pytest.fixture
def village(tenant):
    return Village(tenant)


@pytest.fixture
def stranger(other):
    return Village(other)


@pytest.fixture
def boss(admin):
    return Village(admin)
