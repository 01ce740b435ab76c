"""The judge is judged: a server that keeps the rules passes, and each rule that it breaks is seen by a case."""
import dataclasses

import cases
import ends
import faulty
import judge
import pytest

pytestmark = pytest.mark.engine_free
# A fault, a case that shows it, and what it is then graded.
FAULTS = (
    ("no echo", "1.1.2", judge.FAILED), ("cuts", "1.2.3", judge.FAILED), ("binary", "1.1.1", judge.FAILED),
    ("no pongs", "2.2", judge.FAILED), ("cuts", "2.4", judge.FAILED), ("control frames", "2.5", judge.FAILED),
    ("reserved bits", "3.1", judge.FAILED), ("reserved bits", "3.5", judge.FAILED), ("no echo", "3.2", judge.NON_STRICT),
    ("opcodes", "4.1.1", judge.FAILED), ("opcodes", "4.2.3", judge.FAILED), ("wrong code", "4.2.2", judge.FAILED),
    ("control frames", "5.1", judge.FAILED), ("fragments", "5.9", judge.FAILED), ("fragments", "5.18", judge.FAILED),
    ("no pongs", "5.6", judge.FAILED), ("utf-8", "6.3.1", judge.FAILED), ("utf-8", "6.20.1", judge.FAILED),
    ("wrong code", "6.12.1", judge.FAILED), ("late", "6.4.1", judge.NON_STRICT), ("close codes", "7.3.2", judge.FAILED),
    ("close codes", "7.9.3", judge.FAILED), ("utf-8", "7.5.1", judge.FAILED), ("drops", "7.3.3", judge.FAILED),
    ("drops", "2.5", judge.OK), ("stays", "7.1.1", judge.NON_STRICT), ("talks on", "7.7.1", judge.FAILED),
    ("masks", "1.1.1", judge.FAILED), ("cuts", "9.1.1", judge.FAILED), ("no echo", "10.1.1", judge.FAILED),
    ("cuts", "9.7.2", judge.FAILED), ("talks on", "7.13.1", judge.FAILED),
)


def grade(case, *faults):
    server = faulty.Server(*faults)
    try:
        return ends.attack_server(case, server.port)
    finally:
        server.stop()


@pytest.mark.parametrize("number", sorted({number for _, number, _ in FAULTS} - {"6.4.1"}))
def test_rules_kept(number):
    case = cases.BY_NUMBER[number]
    verdict = grade(case)
    assert verdict.grade == (judge.INFORMATIONAL if case.undefined else judge.OK), verdict


@pytest.mark.parametrize(("fault", "number", "wanted"), FAULTS)
def test_fault_seen(fault, number, wanted, monkeypatch):
    case = cases.BY_NUMBER[number]
    if wanted == judge.FAILED:  # what will not come is not waited for as long
        monkeypatch.setattr(judge, "CLOSE_WITHIN", 0.5)
        case = dataclasses.replace(case, seconds=0.5)
    verdict = grade(case, fault)
    assert verdict.grade == wanted, verdict
