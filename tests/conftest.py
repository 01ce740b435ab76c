"""Options and fixtures of all end-to-end, hostile, crash and real-agent tests."""
import secrets
import subprocess

import pytest

import harness
import model as model_tool


def pytest_addoption(parser):
    parser.addoption("--engine", choices=("sqlite", "postgres"), default="sqlite", help="database of the servers")
    parser.addoption("--long", action="store_true", help="also the checks that take minutes by their nature")
    parser.addoption("--kills", type=int, default=20, help="kills of the crash test")
    parser.addoption("--faults", default="150:15", help="tasks:faults of the fault run")
    parser.addoption("--agents", default="build/npm-agents", help="where the real agents are installed")
    parser.addoption("--sdk", default="build/npm-sdk", help="where the published TypeScript SDK is installed")
    parser.addoption("--schema-seconds", type=int, default=120, help="time for the property-based API tester")


def pytest_collection_modifyitems(config, items):
    chosen = {"engine_free": config.getoption("--engine") != "postgres", "minutes": config.getoption("--long")}
    left_out = [i for i in items if any(not here and i.get_closest_marker(name) for name, here in chosen.items())]
    items[:] = [i for i in items if i not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in harness.Server.running_or_ended_in(item.nodeid):
            report.sections.append((f"muster {server.name}", server.tail()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    harness.Server.current_test = item.nodeid


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) of localhost and 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="session")
def postgres(request):
    """The private PostgreSQL of this session, or None."""
    if request.config.getoption("--engine") != "postgres":
        yield None
        return
    cluster = harness.Postgres()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def model():
    """The scripted model server. Tests tell their calls apart by a word of their own in the prompt."""
    server = model_tool.Model()
    yield server
    server.stop()


@pytest.fixture
def word():
    """A word that occurs in no other test's prompt."""
    return "w" + secrets.token_hex(8)


@pytest.fixture(scope="session")
def shared(model, postgres):
    """One server for the tests that need no settings of their own; checked when the session ends."""
    with harness.serving(harness.provider_env(model), postgres=postgres, name="shared") as server:
        yield server


@pytest.fixture
def oz(shared):
    """The shared server; fails the test during which it dies."""
    shared.assert_alive()
    yield shared
    shared.assert_alive()


@pytest.fixture
def tenant(oz):
    """A client with a bearer token of its own: sees only what this test made."""
    with oz.client("tenant-" + secrets.token_hex(12)) as client:
        yield client


@pytest.fixture
def other(oz):
    with oz.client("other-" + secrets.token_hex(12)) as client:
        yield client


@pytest.fixture
def admin(oz):
    with oz.client(oz.admin_key) as client:
        yield client


@pytest.fixture
def make_server(request, postgres):
    """Starts servers with settings of their own; each is stopped and checked at the end."""
    servers = []

    def make(env=None, **options):
        options.setdefault("postgres", postgres)
        start = options.pop("start", True)
        server = harness.Server(env, **options)
        servers.append(server)
        return server.start() if start else server

    yield make
    errors = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as e:
            errors.append(str(e))
        finally:
            server.remove()
    assert not errors, "\n".join(errors)
