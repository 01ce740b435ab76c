/* What a runner is sent without asking: decisions that it has not taken, and the next prompt. */
#include <errno.h>

#include "app/live/live_int.h"

enum { PROMPT_ARENA = 4 << 20 };

/* --- decisions --- */

static int send_row(void *arg, const struct mu_gate_row *row)
{
    struct mu_live_session *s = arg; /* a reader thread: the rows are kept for the core loop */
    struct mu_gate_row *copy = mu_arena_calloc(&s->arena, sizeof *copy);
    if (!copy) {
        return -ENOMEM;
    }
    mu_bytes asked = row->asked_id.len ? row->asked_id : row->id;
    *copy = (struct mu_gate_row){.id = mu_arena_dup(&s->arena, asked),
                                 .status = row->status,
                                 .scope = row->scope,
                                 .reason = mu_arena_dup(&s->arena, row->reason),
                                 .answer = row->answer.ptr ? mu_arena_dup(&s->arena, row->answer)
                                                           : MU_B_NONE,
                                 .resolved_by = mu_arena_dup(&s->arena, row->resolved_by)};
    if (s->taken < MU_LIVE_BATCH) {
        s->facts[s->taken++].data = mu_bytes_of((char *)copy, sizeof *copy);
    }
    return copy->id.ptr ? 0 : -ENOMEM;
}

static void gates_read(struct mu_gate_list *op, int result)
{
    struct mu_live_session *s = op->ctx;
    size_t n = s->taken;
    s->taken = 0;
    for (size_t i = 0; i < n && result >= 0 && !s->over; i++) {
        const struct mu_gate_row *row = (const void *)s->facts[i].data.ptr;
        mu_live_answer(s, row);
    }
    if (result < 0 && !s->over) {
        mu_live_drop(s, "its gates were not read");
    }
    mu_live_next(s);
}

bool mu_live_send_answers(struct mu_live_session *s)
{
    if (!s->want_answers) {
        return false;
    }
    struct mu_gate_list *op = &s->op.gates;
    *op = (struct mu_gate_list){.read = {.loop = s->l->opts.core},
                                .admin = true,
                                .session = s->id,
                                .untaken = true,
                                .epoch = s->of.epoch,
                                .status = -1,
                                .limit = MU_LIVE_BATCH,
                                .each = send_row,
                                .arg = s,
                                .done = gates_read,
                                .ctx = s};
    s->taken = 0;
    s->task = MU_LIVE_GATES;
    if (mu_gate_list(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        return false; /* the next poke brings it */
    }
    s->want_answers = false;
    return true;
}

/* --- the prompt of a task --- */

static void job_read(struct mu_session_job *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (!s->over && result == 0) {
        s->prompted = true;
        mu_live_prompt(s, mu_id_bytes(&s->id), op->prompt, MU_B_NONE, 1);
    }
    mu_arena_fini(&op->arena);
    mu_live_next(s);
}

static bool send_task(struct mu_live_session *s)
{
    struct mu_session_job *op = &s->op.job;
    if (s->prompted) {
        s->want_turn = false;
        return false;
    }
    *op = (struct mu_session_job){
        .read = {.loop = s->l->opts.core}, .id = s->id, .done = job_read, .ctx = s};
    mu_arena_init(&op->arena, PROMPT_ARENA);
    s->want_turn = false;
    s->task = MU_LIVE_JOB;
    if (mu_session_job_read(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        mu_live_drop(s, "its prompt was not read");
    }
    return true;
}

/* --- the next turn of an interactive session --- */

static void turn_taken(struct mu_turn_next *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (!s->over && result >= 0) {
        s->turn = op->id;
        s->turn_there = true;
        mu_live_prompt(s, mu_id_bytes(&op->id), op->prompt, op->options, op->tries);
    }
    mu_arena_fini(&op->arena);
    mu_live_next(s);
}

bool mu_live_send_turn(struct mu_live_session *s)
{
    bool runs = s->state == MU_ST_RUNNING || s->state == MU_ST_WAITING;
    if (!s->want_turn || !runs) {
        return false;
    }
    if (s->mode != MU_MODE_INTERACTIVE) {
        return send_task(s);
    }
    s->want_turn = false;
    if (s->turn.text[0] && s->turn_there) {
        return false;
    }
    struct mu_turn_next *op = &s->op.next;
    *op = (struct mu_turn_next){.unit = {.loop = s->l->opts.core},
                                .session = s->id,
                                .epoch = s->of.epoch,
                                .again = s->turn.text[0] != 0,
                                .done = turn_taken,
                                .ctx = s};
    mu_arena_init(&op->arena, PROMPT_ARENA);
    s->task = MU_LIVE_NEXT_TURN;
    if (mu_turn_next(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        mu_arena_fini(&op->arena);
        s->want_turn = true;
        return false;
    }
    return true;
}
