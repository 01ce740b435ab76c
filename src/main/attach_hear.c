/* What the server says to one who is attached (village-control-plane.md 8.4). */
#include <stdio.h>

#include "main/attach_int.h"

enum { HEAD = 32, AGAIN_MS = 5000 };

/* --- the terminal --- */

/* 1, terminal, six zero bytes, the offset, the session: then the bytes. */
static void hear_bytes(struct mu_attach *a, mu_bytes m)
{
    int64_t offset = 0;
    if (m.len < HEAD || m.ptr[0] != 1 || (unsigned char)m.ptr[1] != a->terminal) {
        return;
    }
    for (size_t i = 8; i < 16; i++) {
        offset = offset << 8 | (unsigned char)m.ptr[i];
    }
    mu_bytes bytes = mu_bytes_from(m, HEAD);
    if (offset < 0 || offset > INT64_MAX / 2) {
        return;
    }
    if (a->offset >= 0 && offset > a->offset) {
        mu_attach_note(a, "%lld bytes are missing here", (long long)(offset - a->offset));
    }
    size_t known = a->offset > offset ? MU_MIN((size_t)(a->offset - offset), bytes.len) : 0;
    a->offset = MU_MAX(a->offset, offset + (int64_t)bytes.len);
    mu_attach_show(a, mu_bytes_from(bytes, known));
}

/* --- decisions --- */

static void hear_gate(struct mu_attach *a, yyjson_val *gate)
{
    mu_bytes id = mu_json_get_bytes(gate, "approvalId"), action = mu_json_get_bytes(gate, "action");
    mu_bytes what = mu_json_get_bytes(gate, "description"), risk = mu_json_get_bytes(gate, "risk");
    for (size_t i = 0; i < a->n_gates; i++) {
        if (mu_bytes_is(id, a->gates[i].id)) {
            return;
        }
    }
    if (a->n_gates < MU_ATTACH_GATES && id.len && id.len < MU_LONG_ID) {
        snprintf(a->gates[a->n_gates++].id, MU_LONG_ID, "%.*s", MU_ARGS(id));
    }
    if (a->tty && !a->read_only && a->keys.key >= 0) {
        mu_attach_note(a, "approval: %.*s (%.*s, risk %.*s); %s a allows, %s d denies",
                       MU_ARGS(mu_bytes_head(what, 500)), MU_ARGS(action), MU_ARGS(risk),
                       a->key_name, a->key_name);
    } else {
        mu_attach_note(a, "approval: %.*s (%.*s, risk %.*s); `muster approve %.*s` allows it",
                       MU_ARGS(mu_bytes_head(what, 500)), MU_ARGS(action), MU_ARGS(risk),
                       MU_ARGS(id));
    }
}

static void hear_decision(struct mu_attach *a, yyjson_val *m)
{
    mu_bytes id = mu_json_get_bytes(m, "approvalId"), by = mu_json_get_bytes(m, "resolvedBy");
    mu_bytes status = mu_json_get_bytes(m, "status");
    size_t kept = 0;
    for (size_t i = 0; i < a->n_gates; i++) {
        if (!mu_bytes_is(id, a->gates[i].id)) {
            a->gates[kept++] = a->gates[i];
        }
    }
    a->n_gates = kept;
    mu_attach_note(a, "%.*s%s%.*s", MU_ARGS(status), by.len ? " by " : "", MU_ARGS(by));
}

/* --- the session --- */

static void hear_state(struct mu_attach *a, yyjson_val *data)
{
    mu_bytes from = mu_json_get_bytes(data, "previousState");
    mu_bytes to = mu_json_get_bytes(data, "newState"), paused = MU_B("PAUSED_BY_HUMAN");
    yyjson_val *whole = mu_json_get(data, "session"); /* as it is when one begins to listen */
    if (whole && mu_attach_is_end(to)) {
        mu_attach_ended(a, to, whole);
        return;
    }
    bool same = mu_bytes_eq(from, to), runs = mu_bytes_is(to, "RUNNING");
    bool gate = mu_bytes_is(to, "WAITING_FOR_APPROVAL");
    if (runs) {
        mu_attach_send_size(a);
    }
    if ((same && (runs || gate)) || (same && !whole) ||
        (a->tty && (gate || (runs && !mu_bytes_eq(from, paused))))) {
        return;
    }
    mu_attach_note(a, "the session is %.*s", MU_ARGS(to));
}

static void hear_session(struct mu_attach *a, yyjson_val *m)
{
    mu_bytes action = mu_json_get_bytes(m, "action");
    yyjson_val *data = mu_json_get(m, "data");
    if (mu_bytes_is(action, "state_change")) {
        hear_state(a, data);
    } else if (mu_bytes_is(action, "completed")) {
        mu_attach_ended(a, mu_json_get_bytes(data, "finalState"), data);
    }
}

/* --- the connection --- */

static void hear_event(struct mu_attach *a, yyjson_val *m)
{
    if (!mu_bytes_is(mu_json_get_bytes(m, "event"), "subscribed")) {
        return;
    }
    a->subscribed = true;
    a->breaks = 0;
    if (a->broken) {
        a->broken = false;
        mu_attach_note(a, "connected again");
    }
    mu_attach_send_size(a);
    mu_attach_send_typed(a);
}

static void hear_error(struct mu_attach *a, yyjson_val *m)
{
    mu_bytes code = mu_json_get_bytes(m, "code"), reply = mu_json_get_bytes(m, "replyTo");
    mu_bytes words = mu_json_get_bytes(m, "message");
    bool lost = mu_bytes_is(code, "REPLAY_UNAVAILABLE");
    if (mu_bytes_is(reply, "size")) { /* there is nobody yet to tell it */
        return;
    }
    int64_t now = mu_loop_now_ms(a->loop);
    bool known = mu_bytes_is(code, a->error) && now - a->error_ms < AGAIN_MS;
    if (!known) {
        snprintf(a->error, sizeof a->error, "%.*s", (int)MU_MIN(code.len, (size_t)60), code.ptr);
        a->error_ms = now;
        mu_attach_note(a, "%.*s (%.*s)", MU_ARGS(mu_bytes_head(words, 500)), MU_ARGS(code));
    }
    if (mu_bytes_is(reply, "subscribe") && !lost) {
        mu_attach_over(a, mu_bytes_is(code, "SESSION_NOT_FOUND") ? MU_EXIT_NOT_FOUND
                          : mu_bytes_is(code, "FORBIDDEN")       ? MU_EXIT_NOT_ALLOWED
                                                                 : MU_EXIT_FAILED);
    }
}

static void hear_text(struct mu_attach *a, yyjson_val *m)
{
    mu_bytes type = mu_json_get_bytes(m, "type");
    if (mu_bytes_is(type, "session")) {
        hear_session(a, m);
    } else if (mu_bytes_is(type, "approval_required")) {
        hear_gate(a, mu_json_get(m, "approval"));
    } else if (mu_bytes_is(type, "approval_resolved")) {
        hear_decision(a, m);
    } else if (mu_bytes_is(type, "event")) {
        hear_event(a, m);
    } else if (mu_bytes_is(type, "error")) {
        hear_error(a, m);
    } else if (mu_bytes_is(type, "terminal") && a->c->json) {
        a->offset = MU_MAX(a->offset, mu_json_get_i64(m, "offset", 0));
    }
}

void mu_attach_hear(struct mu_attach *a, bool text, mu_bytes message)
{
    const struct mu_json_limits limits = {.max_bytes = 64 << 20, .max_depth = 64};
    struct mu_arena arena;
    yyjson_val *root = NULL;
    if (!text) {
        hear_bytes(a, message);
        return;
    }
    if (a->c->json) {
        mu_attach_write(a, message);
        mu_attach_write(a, MU_B("\n"));
    }
    mu_arena_init(&arena, 512 << 20);
    if (mu_json_read(&arena, message, &limits, &root, NULL) == 0) {
        hear_text(a, root);
    }
    mu_arena_fini(&arena);
}
