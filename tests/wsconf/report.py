#!/usr/bin/env python3
"""Plays the whole catalogue against both of our ends and prints the table of docs/websocket.md.

    build/venv/bin/python tests/wsconf/report.py [--cases]     --cases: a line for each case, and why
"""
import collections
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "tools")]

import cases  # noqa: E402
import ends  # noqa: E402
import judge  # noqa: E402

SIDES = ("server", "client")


def table(results):
    """`results`: (number, side) -> grade. The lines of the page."""
    yield "| group | about | cases | server | client |"
    yield "|---|---|---|---|---|"
    sums = collections.Counter()
    for group, title in cases.TITLES.items():
        numbers = [c.number for c in cases.CASES if c.group == group]
        cells = []
        for side in SIDES:
            grades = collections.Counter(results[n, side] for n in numbers)
            sums[side] += grades[judge.OK]
            sums[side, judge.INFORMATIONAL] += grades[judge.INFORMATIONAL]
            cells.append(cell(grades))
        sums["cases"] += len(numbers)
        yield f"| {group} | {title} | {len(numbers)} | {cells[0]} | {cells[1]} |"
    total = [cell({judge.OK: sums[side], judge.INFORMATIONAL: sums[side, judge.INFORMATIONAL]}) for side in SIDES]
    yield f"| all | | {sums['cases']} | {total[0]} | {total[1]} |"
    for group, (title, count) in cases.COMPRESSION.items():
        yield f"| {group} | {title} | {count} | does not apply | does not apply |"


def cell(grades):
    words = ((judge.OK, "OK"), (judge.INFORMATIONAL, "informational"), (judge.NON_STRICT, "non-strict"), (judge.FAILED, "failed"))
    return ", ".join(f"{grades[g]} {word}" for g, word in words if grades.get(g))


def main():
    end, results, code = ends.muster(), {}, 0
    for case in cases.CASES:
        for side in SIDES:
            verdict = ends.play(case, end, side)
            results[case.number, side] = verdict.grade
            if "--cases" in sys.argv or verdict.grade not in (judge.OK, judge.INFORMATIONAL):
                print(f"{case.number} {side}: {verdict.grade} {verdict.why} ({case.what})", file=sys.stderr)
            code |= verdict.grade in (judge.FAILED, judge.NON_STRICT)
    end.stop()
    print("\n".join(table(results)))
    return code


if __name__ == "__main__":
    sys.exit(main())
