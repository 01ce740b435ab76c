/* `muster attach`: a session's terminal as if it were here. */
#include <signal.h>
#include <stdio.h>

#include "main/attach_int.h"
#include "main/ui.h"

enum { LAST_MS = 1000, SEND_MS = 12 /* the server takes 100 messages a second */, PIECE = 32768 };

/* --- how it ends --- */

void mu_attach_over(struct mu_attach *a, int code)
{
    if (a->over) {
        return;
    }
    a->over = true;
    a->code = code;
    if (!a->loop) { /* it had ended before */
        return;
    }
    if (a->term) {
        a->term = mu_terminal_close(a->term);
        fputc('\n', stderr); /* wherever the cursor was */
    }
    a->dial = mu_ws_dial_abort(a->dial);
    mu_timer_clear(&a->send);
    if (!a->ws || mu_timer_set(&a->again, LAST_MS) < 0) {
        mu_loop_stop(a->loop);
        return;
    }
    mu_ws_close(a->ws, 1000, "");
}

static void on_again(struct mu_timer *t)
{
    struct mu_attach *a = MU_CONTAINER(t, struct mu_attach, again);
    if (a->over) {
        mu_loop_stop(a->loop);
    } else {
        mu_attach_connect(a);
    }
}

static void detach(struct mu_attach *a, int code)
{
    mu_attach_over(a, code);
    mu_attach_note(a, "detached; the session goes on. `muster attach %s` shows it again.", a->id);
}

static void on_interrupt(void *arg, int signum)
{
    struct mu_attach *a = arg;
    (void)signum;
    if (!a->over) {
        detach(a, MU_EXIT_INTERRUPTED);
    }
}

/* --- what a person does --- */

void mu_attach_send_size(struct mu_attach *a)
{
    unsigned cols, rows;
    struct mu_buf b;
    if (!a->subscribed || !a->tty || a->read_only || !mu_terminal_size(&cols, &rows)) {
        return;
    }
    struct mu_json_w w = mu_attach_begin(a, &b, "terminal_resize", "size");
    mu_jw_ki64(&w, "terminal", a->terminal);
    mu_jw_ki64(&w, "cols", MU_MAX(MU_MIN(cols, 500U), 20U));
    mu_jw_ki64(&w, "rows", MU_MAX(MU_MIN(rows, 200U), 5U));
    mu_attach_end(a, &w);
}

void mu_attach_send_typed(struct mu_attach *a)
{
    int64_t now = mu_loop_now_ms(a->loop);
    mu_bytes ready = mu_bytes_head(mu_buf_bytes(&a->typed), PIECE);
    ready.len = mu_keys_whole(ready);
    if (!a->subscribed || !ready.len || mu_timer_is_set(&a->send)) {
        return;
    }
    if (now - a->sent_ms >= SEND_MS) {
        struct mu_buf b;
        struct mu_json_w w = mu_attach_begin(a, &b, "terminal_input", "input");
        mu_jw_ki64(&w, "terminal", a->terminal);
        mu_jw_kstr(&w, "data", ready);
        mu_attach_end(a, &w);
        mu_buf_consume(&a->typed, ready.len);
        a->sent_ms = now;
    }
    if (a->typed.len && !a->over && mu_timer_set(&a->send, SEND_MS) < 0) {
        mu_attach_over(a, mu_client_no_memory());
    }
}

static void on_send(struct mu_timer *t)
{
    mu_attach_send_typed(MU_CONTAINER(t, struct mu_attach, send));
}

static void decide(struct mu_attach *a, bool allow)
{
    struct mu_buf b;
    if (!a->n_gates || !a->subscribed) {
        mu_attach_note(a, "nothing waits for a decision any more");
        return;
    }
    struct mu_json_w w = mu_attach_begin(a, &b, "resolve_approval", "decision");
    mu_jw_kcstr(&w, "approvalId", a->gates[0].id);
    mu_jw_kcstr(&w, "decision", allow ? "allow" : "deny");
    mu_attach_end(a, &w);
}

static void type(struct mu_attach *a, mu_bytes text)
{
    if (!text.len || a->read_only) {
        return;
    }
    if (a->typed.len + text.len > MU_ATTACH_TYPED) {
        mu_attach_note(a, "%zu typed bytes are lost: the server does not take them", text.len);
        return;
    }
    mu_buf_add(&a->typed, text);
    mu_attach_send_typed(a);
}

static void on_input(void *arg, mu_bytes typed)
{
    struct mu_attach *a = arg;
    while (typed.len && !a->over) {
        mu_bytes text;
        enum mu_key key = mu_keys_next(&a->keys, &typed, a->n_gates && !a->read_only, &text);
        type(a, text);
        if (key == MU_KEY_DETACH) {
            detach(a, MU_EXIT_OK);
        } else if (key == MU_KEY_PREFIX) {
            mu_attach_note(a, "a allows, d denies, %s detaches", a->key_name);
        } else if (key == MU_KEY_ALLOW || key == MU_KEY_DENY) {
            decide(a, key == MU_KEY_ALLOW);
        }
    }
}

static void on_resized(void *arg, unsigned cols, unsigned rows)
{
    (void)cols;
    (void)rows;
    mu_attach_send_size(arg);
}

/* The terminal is gone, and whoever sat there. */
static void on_gone(void *arg)
{
    mu_attach_over(arg, MU_EXIT_FAILED);
}

static const struct mu_terminal_ops terminal_ops = {
    .input = on_input, .resized = on_resized, .ended = on_gone};

/* --- the command --- */

static int take_flags(const struct mu_cli *cli, struct mu_attach *a)
{
    int64_t terminal;
    const char *env = getenv("OZ_DETACH_KEY"), *given = mu_cli_value(cli, "detach-key");
    int r = mu_cli_number(cli, "terminal", 0, 7, 0, &terminal);
    if (r) {
        return r;
    }
    a->terminal = (unsigned)terminal;
    a->read_only = mu_cli_has(cli, "read-only");
    a->key_name = given ? given : env && env[0] ? env : "ctrl-]";
    if (mu_keys_parse(mu_str(a->key_name), &a->keys.key) < 0) {
        return mu_usage(cli->cmd, "%s: expected a key like ctrl-] or ctrl-a, or none", a->key_name);
    }
    return 0;
}

static int begin(struct mu_attach *a)
{
    int r = a->tty ? mu_terminal_open(a->loop, &terminal_ops, a, &a->term)
                   : mu_loop_signal(a->loop, SIGINT, on_interrupt, a);
    if (r < 0) {
        fprintf(stderr, "muster: the terminal: %s\n", mu_err_text(r));
        return MU_EXIT_FAILED;
    }
    mu_attach_connect(a);
    return 0;
}

static int run(struct mu_attach *a)
{
    if (mu_loop_new(&mu_env_real, "attach", &a->loop) < 0) {
        return mu_client_no_memory();
    }
    mu_timer_init(&a->again, a->loop, on_again);
    mu_timer_init(&a->send, a->loop, on_send);
    mu_buf_init(&a->typed, MU_ATTACH_TYPED);
    mu_buf_init(&a->notes, MU_ATTACH_NOTES);
    mu_buf_init(&a->incoming, 64 << 20);
    int r = begin(a);
    if (r == 0) {
        mu_loop_run(a->loop);
        r = a->code;
    }
    a->over = true;
    a->term = mu_terminal_close(a->term);
    a->dial = mu_ws_dial_abort(a->dial);
    if (a->ws) {
        mu_ws_abort(a->ws);
    }
    mu_timer_clear(&a->again);
    mu_timer_clear(&a->send);
    a->loop = mu_loop_free(a->loop);
    mu_buf_wipe(&a->typed);
    mu_buf_fini(&a->notes);
    mu_buf_fini(&a->incoming);
    return r;
}

int mu_cmd_attach(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_attach a = {.c = &c, .offset = -1, .sent_ms = -SEND_MS, .error_ms = -60000};
    int r = take_flags(cli, &a);
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r) {
        return r;
    }
    a.tty = !c.json && isatty(0) && isatty(1);
    /* Whether it may be seen at all is told better here. */
    r = mu_session_call(cli, &c, "GET", "", MU_B_NONE, a.id, &reply);
    yyjson_val *session = r == 0 ? mu_json_get(reply.root, "data") : NULL;
    mu_bytes state = mu_json_get_bytes(session, "state");
    if (r == 0 && mu_attach_is_end(state)) {
        if (c.json) {
            mu_client_print(&reply);
        }
        mu_attach_ended(&a, state, session);
        r = a.code;
    } else if (r == 0) {
        if (a.tty && a.keys.key >= 0) {
            fprintf(stderr, "muster: attached to %s; %s detaches\n", a.id, a.key_name);
        }
        r = run(&a);
    }
    mu_client_close(&c);
    return r;
}
