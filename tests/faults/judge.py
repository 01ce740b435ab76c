"""What a fault run is judged by: the witness's account against what the server says. Pure functions, so that test_judge.py can
show that each finding is found.

Executed again: only an attempt of which the server had not heard that it runs may be followed by another one (fleet: "The
worker lost it"), and only when its sandbox was killed by us; its successor starts when nothing of it is left."""
import collections
import dataclasses
import datetime

import witness

TICK = 0.05      # clocks of two processes on one machine, and stored times that are cut to 1 ms
CANCEL_SLACK = 2.0  # a cancel is one write; the worker hears of it after that
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclasses.dataclass
class Story:
    """One run: what was asked for, acknowledged and seen."""
    key: str
    tenant: str
    seconds: float
    lines: int = 0
    daemon: bool = False
    status: int = 0
    cancel_after: float = None
    run_id: str = None
    cancel_tried: bool = False
    cancelled_at: float = None  # acknowledged
    ended: tuple = None         # (state, completed_at) as first seen
    final: dict = None          # the run as it is at the end


class Judge:
    def __init__(self, stories, executions, killed, impaired, killed_runs=()):
        """killed: execution ids whose sandbox we killed, maybe before the witness heard of it: killed_runs. impaired: worker -> (begin, end) of the times in which it could not be
        told anything at once."""
        self.stories, self.killed, self.killed_runs = stories, set(killed), set(killed_runs)
        self.impaired = {worker: merged(times) for worker, times in impaired.items()}
        self.by_run = collections.defaultdict(list)
        for e in sorted(executions, key=lambda e: e.started):
            self.by_run[e.run_id].append(e)

    def all(self):
        errors, known = [], set()
        for s in self.stories:
            if s.run_id in known:
                errors.append(f"{s.run_id}: two requests got this run")
            known.add(s.run_id)
            errors += [f"{s.run_id} ({s.final['state'] if s.final else 'no answer'}): {text}" for text in self.one(s)]
        errors += [f"{run_id}: executed, and nobody asked for it" for run_id in set(self.by_run) - known]
        return errors

    def one(self, s):
        run, seen = s.final, self.by_run.get(s.run_id, [])
        if run is None:
            return ["acknowledged, and not there"]
        if run["state"] not in TERMINAL:
            return ["lost: has not ended"]
        done = [e for e in seen if e.ended is not None]
        errors = self.apart(seen) + self.reasons(seen)
        if s.ended and s.ended != (run["state"], run["completed_at"]):
            errors.append(f"was {s.ended} before")
        if len(done) > 1:
            errors.append(f"executed to its end {len(done)} times")
        errors += self.after(run, seen)
        if run["state"] == "SUCCEEDED":
            errors += self.succeeded(s, run, done)
        elif run["state"] == "FAILED":
            errors += self.failed(s, run, seen, done)
        elif not s.cancel_tried:
            errors.append("nobody cancelled it")
        if s.cancelled_at and run["state"] != "CANCELLED" and stamp(run["completed_at"]) > s.cancelled_at + TICK:
            errors.append("cancel acknowledged before it ended")
        return errors

    @staticmethod
    def apart(seen):
        """Never two at the same time."""
        return [f"{b.name} started while {a.name} lived" for a, b in zip(seen, seen[1:]) if a.gone is None or b.started < a.gone]

    def reasons(self, seen):
        return [f"executed again after {a.name}, which nobody killed" for a in seen[:-1] if a.execution_id not in self.killed]

    def after(self, run, seen):
        """None starts after the end. What a cancel stops may start until the worker hears of it."""
        end, errors = stamp(run["completed_at"]), []
        for e in seen:
            allowed = end + TICK
            if run["state"] == "CANCELLED":
                allowed = end + CANCEL_SLACK + sum(max(0.0, min(e.started, b) - max(end, a))
                                                      for a, b in self.impaired.get(e.worker, ()))
            if e.started > allowed:
                errors.append(f"started {e.started - end:.3f} s after the end")
        return errors

    @staticmethod
    def succeeded(s, run, done):
        if s.status != 0:
            return [f"its program ended with {s.status}"]
        if not done:
            return ["never executed to its end"]
        if run["output"] != witness.Witness.output(done[0].name, s.lines):
            return [f"not the output of {done[0].name}: {run['output'][:60]!r}… of {len(run['output'])}"]
        return []

    def failed(self, s, run, seen, done):
        code = (run["error"] or {}).get("code")
        if code == "exit_code" and s.status and len(done) == 1:
            return []
        if s.run_id in self.killed_runs or any(e.execution_id in self.killed for e in seen):
            return []
        return [f"for no reason of ours: {run['error']} after {len(seen)} executions"]


def merged(times):
    out = []
    for a, b in sorted(times):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out


def stamp(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
