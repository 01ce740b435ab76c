"""The kill -9 test in CI: 20 kills (200 by hand and with script/test --long)."""
import kill9
import pytest


@pytest.mark.timeout(1800)
def test_kill9(request, capsys):
    def out(text):
        with capsys.disabled():
            print(text, flush=True)

    out("")
    kill9.Crash(request.config.getoption("--kills"), request.config.getoption("--engine"), out=out).run()
