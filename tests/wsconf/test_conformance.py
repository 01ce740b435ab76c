"""Every case of the Autobahn catalogue that applies, against our server's end and our client's."""
import functools

import cases
import ends
import judge
import pytest
import report
from harness import ROOT

pytestmark = pytest.mark.engine_free


@pytest.fixture(scope="module")
def results():
    """Plays a case once: the table at the end counts what the tests before it saw."""
    end = ends.muster()

    @functools.lru_cache(maxsize=None)
    def play(number, side):
        return ends.play(cases.BY_NUMBER[number], end, side)

    yield play
    end.stop()


def passed(case, verdict):
    """More than the suite asks for: we say why we close. Only a close frame without a code is answered without one."""
    codes = (None,) if case.number == "7.3.1" else case.codes
    return (verdict.grade == (judge.INFORMATIONAL if case.undefined else judge.OK) and verdict.code in codes and
            not verdict.dropped)


@pytest.mark.parametrize("side", report.SIDES)
@pytest.mark.parametrize("case", cases.CASES, ids=lambda c: c.number)
def test_case(results, case, side):
    verdict = results(case.number, side)
    assert passed(case, verdict), (case.what, verdict)


@pytest.mark.parametrize("side", report.SIDES)
def test_over_tls(certificate, side):
    end, wrong = ends.muster(certificate), []
    for case in cases.CASES:
        verdict = ends.play(case, end, side)
        if not passed(case, verdict):
            wrong.append(f"{case.number} {case.what}: {verdict}")
    end.stop()
    assert not wrong, "\n".join(wrong)


def test_no_case_is_missing():
    """The numbers of cases that the suite itself counts for each group."""
    counted = {group: sum(c.group == group for c in cases.CASES) for group in cases.TITLES}
    assert counted == {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1}
    assert len(cases.BY_NUMBER) == 301 and sum(count for _, count in cases.COMPRESSION.values()) == 216


@pytest.mark.timeout(600)
def test_the_page_shows_these_results(results):
    grades = {(c.number, side): results(c.number, side).grade for c in cases.CASES for side in report.SIDES}
    page = (ROOT / "docs/websocket.md").read_text()
    assert "\n".join(report.table(grades)) in page, "docs/websocket.md is not current: tests/wsconf/report.py prints the table"
