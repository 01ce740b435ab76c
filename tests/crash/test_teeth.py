"""The judge of the kill -9 test sees what it is there for: the effect of the recovery is undone and stored data are spoilt
behind a sound server's back, and each of it has to be found, and nothing else."""
import re

import harness
import kill9
import pytest


def row(entry):
    return entry.run_id.removeprefix("run_")


class Spoilt(kill9.Crash):
    """Three kills; at each start the runs that were being executed are kept from the recovery."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.settle_seconds = 6
        self.spoilt = {}  # what was done -> (run ids, the words that must be found)
        self.untouched = set()

    def choose(self, test):
        """An acknowledged run nobody else has touched or will wait for."""
        for entry in reversed(self.entries):
            if entry.run_id and not entry.delete_tried and not entry.cancel_tried and row(entry) not in self.untouched \
                    and test(entry):
                self.untouched.add(row(entry))
                return entry
        raise AssertionError("no such run")

    def while_dead(self, number):
        # The recovery passes over the runs of another route; they stay INPROGRESS, and nobody executes them.
        self.hidden = [r[0] for r in self.sql("SELECT id FROM sessions WHERE state = 60 AND route = 1 AND stop_ms IS NULL")]
        self.sql("UPDATE sessions SET route = 77 WHERE state = 60 AND route = 1 AND stop_ms IS NULL")
        self.spoilt.setdefault("not recovered", (set(), "orphan, still"))[0].update(self.hidden)
        if number == self.kills:
            self.spoil()

    def when_up(self, number):
        self.sql("UPDATE sessions SET route = 1 WHERE route = 77")
        if number == self.kills:
            tenant = self.entries[0].tenant
            with harness.Client(self.server, tenant) as client:
                twice = client.create("a second run of one request")["run_id"]
            self.spoilt["made twice"] = ({twice.removeprefix("run_")}, "runs too many")

    def spoil(self):
        def ended(entry):
            return entry.ended and entry.ended[0] == "SUCCEEDED"

        lost, again, hole = self.choose(ended), self.choose(ended), self.choose(ended)
        self.sql(f"DELETE FROM sessions WHERE id = '{row(lost)}'")
        self.spoilt["lost"] = ({row(lost)}, "acknowledged, now 404")
        self.sql("UPDATE sessions SET state = 20, outcome = 0, end_reason = 0, ended_ms = NULL, purge_ms = NULL, tries = 0 "
                 f"WHERE id = '{row(again)}'")
        self.spoilt["executed again"] = ({row(again)}, "upstream call [0-9.]+ s after")
        self.sql(f"DELETE FROM events WHERE stream_id = '{row(hole)}' AND seq = 2")
        self.spoilt["hole"] = ({row(hole)}, "event log not dense")
        _, environment, _ = self.environments[-1]
        self.sql(f"DELETE FROM environments WHERE id = '{environment.removeprefix('env_')}'")
        self.spoilt["environment lost"] = ({environment.removeprefix("env_")}, "acknowledged, now 404")

    def verdict(self):
        """Here: the judgement of the judge."""
        text = "\n".join(self.errors)
        known, told = set(), []
        for what, (ids, words) in self.spoilt.items():
            assert ids, f"{what}: no kill met such a run"
            found = {i for i in ids if re.search(f"{i}.*({words})|({words}).*{i}", text)}
            known |= ids
            # A run that was not recovered may have been cancelled or deleted since, which is an end.
            assert found == ids or (what == "not recovered" and found), f"{what}: {len(found)} of {len(ids)} found\n{text[:3000]}"
            told.append(f"{what} {len(found)} of {len(ids)}")
        wrong = [e for e in self.errors if not any(i in e for i in known)]
        assert not wrong, "blamed without a cause:\n" + "\n".join(wrong[:20])
        self.out("found: " + ", ".join(told))


@pytest.mark.timeout(300)
def test_the_judge_sees_what_went_wrong(request, capsys):
    def out(text):
        with capsys.disabled():
            print(f"teeth: {text}" if text else "", flush=True)

    out("")
    Spoilt(3, request.config.getoption("--engine"), out=out).run()
