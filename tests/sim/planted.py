"""Bugs that the simulator must find: each is a change of one shipped source file.

planted.py --list                     the names, each with its file
planted.py NAME SOURCE_FOLDER OUTPUT  writes that file with the bug in it
planted.py --run FOLDER [SEEDS]       runs the programs sim-NAME of a folder until each has caught its bug
"""

import re
import subprocess
import sys
from pathlib import Path

# name: (file, [(text, text with the bug)]). Every text occurs exactly once.
BUGS = {
    # reports of another attempt count as this one's
    "fencing": ("app/fleet/reports.c", [
        ("if (r->execution.text[0] && strcmp(r->execution.text, k->execution.text) != 0) {", "if (0) {"),
        ("return r->epoch >= 0 && r->epoch != t->epoch ? NULL : t;", "return t;")]),
    # a session that has ended ends once more
    "two-ends": ("app/sessions/end.c", [("AND state BETWEEN 20 AND 80 RETURNING state", "AND state BETWEEN 20 AND 99 RETURNING state")]),
    # a session that was made with a key is never queued
    "lost-wake-up": ("app/fleet/task.c", [
        ("    t->post.fn = born_here;\n    mu_loop_post(t->f->opts.core, &t->post);",
         "    t->post.fn = born_here;\n    if (t->ahead || !t->born) {\n        mu_loop_post(t->f->opts.core, &t->post);\n    }")]),
    # a stop that was accepted is not told to the fleet
    "lost-stop": ("app/dispatch/dispatch.c", [
        ("    p->route = op->route;\n    mu_loop_post(p->d->opts.core, &p->post);",
         "    p->route = op->route;\n    if (op->state == MU_ST_STOPPING) {\n        mu_free(p);\n        return;\n    }\n"
         "    mu_loop_post(p->d->opts.core, &p->post);")]),
    # a number of a log is left out now and then
    "seq-gap": ("db/tx.c", [("SET last_seq = last_seq + $2 WHERE", "SET last_seq = last_seq + $2 + (last_seq = 4) WHERE")]),
    # a session that runs has no deadline
    "no-deadline": ("app/fleet/work.c", [
        ("k->deadline_ms = mu_fleet_now(f) + f->opts.run_max_ms;", "k->deadline_ms = mu_fleet_now(f) + 100 * f->opts.run_max_ms;")]),
    # what a worker held when it went is its own for ever
    "endless-lease": ("app/fleet/work.c", [("    if (k->sent && !k->retry) {\n        mu_task_due(t, patience(t));\n    }\n", "")]),
    # another worker gets it while the first may still begin
    "short-lease": ("app/fleet/work.c", [
        ("    if (k->sent && !k->retry) {\n        mu_task_due(t, patience(t));\n    }\n",
         "    if (k->sent && !k->retry) {\n        mu_task_due(t, 0);\n    }\n")]),
    # an end is acknowledged while it is only in memory
    "early-ack": ("app/fleet/reports.c", [
        ("k->late_seq = MU_MAX(k->late_seq, r->seq); /* the worker keeps it until that is stored */", "ignore(w, r);")]),
    # a commit that failed counts as one
    "not-durable": ("db/batch.c", [("    r = mu_db_commit(w->db);\n", "    r = 0;\n    if (mu_db_commit(w->db) < 0) {\n        mu_db_rollback(w->db);\n    }\n")]),
    # a transaction that failed is published all the same
    "early-word": ("db/batch.c", [("    w->committing = true;\n", "    w->committing = true;\n    if (w->opts.feed) {\n        mu_tx_publish(&w->tx);\n    }\n")]),
    # a database that is away is asked again at once, for ever
    "circles": ("app/fleet/place.c", [("&& !t->stubborn && somebody", "&& somebody")]),
    # the sessions of others can be stopped
    "foreign": ("app/sessions/stop.c", [("(!admin && !mu_bytes_is(org_id, ret->org))", "(!admin && !org_id.len)")]),
    # the token of an attempt outlives it
    "old-token": ("app/fleet/work.c", [("    if (k->token_known) {\n        mu_identity_run_token_remove(f->opts.identity, k->token_hash.text);\n    }\n", "")]),
    # a slot is not given back when an attempt is put back
    "lost-slot": ("app/fleet/work.c", [("    mu_work_free_slot(k);\n    k->w = NULL;", "    k->w = NULL;")]),
    # a gate that was resolved is resolved once more
    "two-decisions": ("app/sessions/gates_resolve.c", [
        ("WHERE id = $1 AND session_id = $2 AND status = 0\"", "WHERE id = $1 AND session_id = $2\""),
        ("    if (d.found.known.status != MU_GATE_PENDING) {\n        return answer_known(op, &d.found);\n    }\n", "    (void)answer_known;\n")]),
    # what nobody allowed is told as allowed
    "no-gate": ("app/live/outbound.c", [("row->status == MU_GATE_CANCELLED ? \"cancel\"", "row->status == MU_GATE_EXPIRED ? \"allow\"")]),
    # a message of a runner is acknowledged before it is stored
    "early-fact": ("app/live/inbound.c", [("    s->in_count++;\n    s->queued_seq = seq;\n", "    s->in_count++;\n    s->queued_seq = seq;\n    mu_live_ack(s, seq);\n")]),
    # a gate of a paused session is tried again at once, for ever
    "paused-circles": ("app/live/gates.c", [("at <= now ? now + k->retry_ms : at", "at")]),
    # what runs before its worker's first step is stored keeps the deadline of its offer
    "offer-deadline": ("app/sessions/report.c", [("l->state == MU_ST_CLAIMED ? op->now_ms", "l->state == 0 ? op->now_ms")]),
    # the end of a session leaves its gates open
    "open-gate": ("app/sessions/open.c", [(": mu_gates_close(tx, session_id, now_ms);", ": 0;")]),
    # a session hibernates, and its worker's slot is not free
    "hostage": ("app/live/sleeper.c", [("        mu_fleet_asleep(l->opts.fleet, &of);\n", "        (void)of;\n")]),
    # a session that was woken is not queued
    "not-woken": ("app/live/wake.c", [("    if (l->stopping || mu_fleet_knows(l->opts.fleet, session)) {", "    if (l || session) {")]),
    # what was decided before a session hibernated is applied again and again
    "decision-twice": ("app/sessions/gates.c", [
        ('"0 AND epoch < $4 AND delivered_ms IS NULL AND status IN (0, 1, 2, 3) ORDER', '"0 AND epoch < $4 AND status IN (0, 1, 2, 3) ORDER'),
        ('"UPDATE gates SET epoch = $3, asked_id = $4 WHERE id = $1 AND session_id = $2 AND delivered_ms "\n    "IS NULL",',
         '"UPDATE gates SET epoch = $3, asked_id = $4, delivered_ms = NULL WHERE id = $1 AND session_id = $2",')]),
    # a report is not released whole
    "leak": ("app/fleet/reports.c", [("        mu_arena_fini(&r->arena);\n        mu_free(r);", "        mu_free(r);")]),
}


def write(name, sources, output):
    path, changes = BUGS[name]
    text = (Path(sources) / path).read_text()
    for old, new in changes:
        if text.count(old) != 1:
            sys.exit(f"planted bug {name}: {path} has {text.count(old)} times: {old}")
        text = text.replace(old, new)
    Path(output).write_text(text)


def run(folder, seeds):
    missed = 0
    for name in BUGS:
        done = subprocess.run([f"{folder}/sim-{name}", "--seeds", str(seeds)], capture_output=True, text=True, errors="replace")
        said = re.search(r"^seed (\d+), step (\d+): (.*)$", done.stderr, re.M)
        if done.returncode == 1 and said and not said[3].startswith("simulator"):
            print(f"PASS {name}: found after {said[1]} seeds: {said[3][:120]}", flush=True)
        else:
            missed += 1
            print(f"FAIL {name}: not found in {seeds} seeds (exit {done.returncode}) {done.stderr[:200]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print(";".join(f"{name}={path}" for name, (path, _) in BUGS.items()))
    elif sys.argv[1] == "--run":
        sys.exit(run(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 6000))
    else:
        write(*sys.argv[1:4])
