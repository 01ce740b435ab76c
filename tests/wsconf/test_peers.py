"""The catalogue is right: two other implementations pass it too, in both directions, but for what is known of them."""
import cases
import ends
import judge
import pytest
import report

pytestmark = [pytest.mark.engine_free, pytest.mark.minutes, pytest.mark.timeout(600)]

STRICT = (judge.OK,)
# What is known of a peer: number -> (grades that it may get, why). Nothing else may differ from OK.
LATE = {f"6.4.{i}": ((judge.NON_STRICT,), "it looks at the text of a whole message only") for i in range(1, 5)}
BEFORE = {n: ((judge.OK, judge.NON_STRICT), "it may fail the connection before the echo of the good message left: reader and "
              "writer are two tasks")
          for n in ("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15")}
KNOWN = {
    "websockets": LATE | BEFORE | {
        "7.1.5": ((judge.FAILED,), "it refuses a close frame between two fragments (1002), which RFC 6455 5.4 allows")},
    "ws": LATE,
}


@pytest.fixture(scope="module", params=["websockets", "ws"])
def peer(request):
    end = ends.websockets() if request.param == "websockets" else ends.ws(request.config.getoption("--sdk"))
    yield request.param, end
    end.stop()


@pytest.mark.parametrize("side", report.SIDES)
def test_catalogue(peer, side):
    name, end = peer
    wrong = []
    for case in cases.CASES:
        wanted = (judge.INFORMATIONAL,) if case.undefined else KNOWN[name].get(case.number, (STRICT, ""))[0]
        verdict = ends.play(case, end, side)
        if verdict.grade not in wanted:
            wrong.append(f"{case.number} {case.what}: {verdict}, not {wanted}")
    assert not wrong, "\n".join(wrong)
