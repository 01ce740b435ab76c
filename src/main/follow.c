/* Following a run: its events as they come, resumed where a connection broke. */
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "base/env.h"
#include "main/client.h"
#include "main/ui.h"
#include "proto/sse.h"

enum { MAX_EVENT = 16 * 1024 * 1024, MAX_BREAKS = 8, SECOND_PRESS_MS = 3000 };

static volatile sig_atomic_t presses;

static void on_interrupt(int sig)
{
    (void)sig;
    presses++;
}

struct follow {
    struct mu_client *c;
    const struct mu_follow *opts;
    struct mu_sse sse;
    char last_id[32], state[16];
    int64_t printed; /* bytes of the answer that are on stdout */
    int64_t started_ms, drawn_ms;
    bool ended, line_open, status_shown, wrote;
    struct mu_buf error_body; /* of an answer that is no stream */
    long status;
};

static void hide_status(struct follow *f)
{
    if (f->status_shown) {
        fputs("\r\033[K", stderr);
        f->status_shown = false;
    }
}

/* Only at the start of a line: text that is being written stays as it is. */
static void draw_status(struct follow *f)
{
    char span[32];
    int64_t now = mu_env_mono_ms(&mu_env_real);
    if (!f->opts->progress || f->line_open || now - f->drawn_ms < 200) {
        return;
    }
    f->drawn_ms = now;
    mu_ui_seconds((now - f->started_ms) / 1000, span, sizeof span);
    fprintf(stderr, "\r\033[K%s%s%s %s", mu_ui_state_colour(stderr, mu_str(f->state)),
            f->state[0] ? f->state : "…", mu_ui_reset(stderr), span);
    fflush(stderr);
    f->status_shown = true;
}

static void write_text(struct follow *f, mu_bytes text)
{
    if (text.len == 0) {
        return;
    }
    hide_status(f);
    mu_ui_text(text);
    fflush(stdout);
    f->wrote = true;
    f->line_open = text.ptr[text.len - 1] != '\n';
}

static void end_line(struct follow *f)
{
    if (f->line_open) {
        putchar('\n');
        f->line_open = false;
    }
}

/* Pieces carry their place in the answer, so that what a new connection repeats is not printed
 * again. */
static void on_output(struct follow *f, yyjson_val *data)
{
    int64_t offset = mu_json_get_i64(data, "offset", f->printed);
    mu_bytes text = mu_json_get_bytes(data, "text");
    if (mu_json_get_bool(data, "reset", false)) {
        if (f->wrote) {
            end_line(f);
            fputs("muster: the answer begins again\n", stderr);
        }
        f->printed = offset;
    }
    if (offset > f->printed) {
        end_line(f);
        fprintf(stderr, "muster: %lld bytes are missing here\n", (long long)(offset - f->printed));
        f->printed = offset;
    }
    size_t known = (size_t)(f->printed - offset);
    if (known < text.len) {
        write_text(f, mu_bytes_from(text, known));
        f->printed = offset + (int64_t)text.len;
    }
}

static void on_event(void *arg, mu_bytes event, mu_bytes data, mu_bytes id)
{
    const struct mu_json_limits limits = {.max_bytes = MAX_EVENT, .max_depth = 32};
    struct follow *f = arg;
    struct mu_arena a;
    yyjson_val *root = NULL;
    if (id.len && id.len < sizeof f->last_id) {
        memcpy(f->last_id, id.ptr, id.len);
        f->last_id[id.len] = 0;
    }
    mu_arena_init(&a, 256 * 1024 * 1024);
    if (mu_json_read(&a, data, &limits, &root, NULL) < 0) {
        root = NULL;
    }
    mu_bytes state = mu_json_get_bytes(root, "state");
    if (state.len && state.len < sizeof f->state) {
        memcpy(f->state, state.ptr, state.len);
        f->state[state.len] = 0;
    }
    if (f->opts->events) {
        printf("{\"event\":\"%.*s\",\"data\":%.*s}\n", MU_ARGS(event), root ? (int)data.len : 4,
               root ? data.ptr : "null");
        fflush(stdout);
    } else if (mu_bytes_is(event, "output")) {
        on_output(f, root);
    }
    if (mu_bytes_is(event, "end")) {
        f->ended = true;
        mu_sse_stop(&f->sse);
    }
    mu_arena_fini(&a);
}

static size_t on_bytes(char *data, size_t one, size_t n, void *arg)
{
    struct follow *f = arg;
    mu_bytes piece = mu_bytes_of(data, one * n);
    if (f->status == 0) {
        curl_easy_getinfo(f->c->curl, CURLINFO_RESPONSE_CODE, &f->status);
    }
    if (f->status != 200) {
        mu_buf_add(&f->error_body, piece);
        return piece.len;
    }
    return mu_sse_feed(&f->sse, piece) < 0 || f->ended ? 0 : piece.len;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    draw_status(arg);
    return presses > 0;
}

/* One connection, until the run ended, somebody pressed Ctrl-C, or it broke. */
static int connect_once(struct follow *f, CURLcode *ret_code)
{
    struct curl_slist *headers = NULL, *grown;
    char line[64];
    CURL *curl = f->c->curl;
    if (mu_client_prepare(f->c, mu_client_path(f->c, "/agent/runs", f->opts->id, "/events"),
                          &headers) < 0) {
        curl_slist_free_all(headers);
        return mu_client_no_memory();
    }
    if (f->last_id[0]) {
        snprintf(line, sizeof line, "Last-Event-ID: %s", f->last_id);
        grown = curl_slist_append(headers, line);
        headers = grown ? grown : headers;
    }
    grown = curl_slist_append(headers, "Accept: text/event-stream");
    headers = grown ? grown : headers;
    f->status = 0;
    mu_buf_clear(&f->error_body);
    mu_sse_init(&f->sse, MAX_EVENT, on_event, f);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, f);
    /* Comments come every 15 s: a minute without a byte is a dead connection. */
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 60L);
    *ret_code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &f->status);
    mu_sse_fini(&f->sse);
    curl_slist_free_all(headers);
    return 0;
}

static int interrupted(struct follow *f)
{
    hide_status(f);
    end_line(f);
    fprintf(stderr,
            "muster: detached; the run goes on. `muster logs --follow %s` shows it again; "
            "Ctrl-C once more cancels it.\n",
            f->opts->id);
    int64_t until = mu_env_mono_ms(&mu_env_real) + SECOND_PRESS_MS;
    while (presses < 2 && mu_env_mono_ms(&mu_env_real) < until) {
        struct timespec pause = {.tv_nsec = 50000000};
        nanosleep(&pause, NULL);
    }
    if (presses < 2) {
        return MU_EXIT_INTERRUPTED;
    }
    struct mu_reply reply;
    const struct mu_request req = {
        .method = "POST", .path = mu_client_path(f->c, "/agent/runs", f->opts->id, "/cancel")};
    int r = mu_client_call(f->c, &req, &reply);
    if (r == 0) {
        fputs("muster: cancelled\n", stderr);
    }
    return r ? r : MU_EXIT_FAILED;
}

static int refused(struct follow *f)
{
    const struct mu_json_limits limits = {.max_bytes = 1 << 20, .max_depth = 16};
    struct mu_reply reply = {.status = (int)f->status, .body = mu_buf_bytes(&f->error_body)};
    hide_status(f);
    if (mu_json_read(&f->c->arena, reply.body, &limits, &reply.root, NULL) < 0) {
        reply.root = NULL;
    }
    return mu_client_refused(f->c, &reply);
}

static int follow_loop(struct follow *f)
{
    for (int breaks = 0;;) {
        CURLcode code = CURLE_OK;
        char before[sizeof f->last_id];
        int64_t printed = f->printed;
        snprintf(before, sizeof before, "%s", f->last_id);
        int r = connect_once(f, &code);
        if (r || f->ended) {
            return r;
        }
        if (presses) {
            return interrupted(f);
        }
        if (f->status >= 400 && f->status != 429 && f->status < 500) {
            return refused(f);
        }
        if (strcmp(before, f->last_id) != 0 || printed != f->printed) {
            breaks = 0; /* it moves on: only breaks in a row count */
        }
        if (++breaks > MAX_BREAKS) {
            hide_status(f);
            return f->status >= 400 ? refused(f) : mu_client_no_server(f->c, code);
        }
        struct timespec pause = {.tv_sec = breaks > 2 ? 2 : 0, .tv_nsec = 300000000};
        nanosleep(&pause, NULL);
    }
}

/* State and error of a run that ended otherwise than well, on stderr. */
static void print_failure(yyjson_val *run)
{
    mu_bytes state = mu_json_get_bytes(run, "state");
    mu_bytes words = mu_json_get_bytes(mu_json_get(run, "error"), "message");
    struct mu_buf b;
    if (mu_bytes_is(state, "SUCCEEDED")) {
        return;
    }
    fflush(stdout);
    mu_buf_init(&b, 1 << 20);
    mu_ui_clean(&b, words, false);
    fprintf(stderr, "muster: %.*s%s%.*s\n", MU_ARGS(state), words.len ? ": " : "",
            MU_ARGS(mu_buf_bytes(&b)));
    mu_buf_fini(&b);
}

/* The stored answer is trimmed and complete: whatever the stream left out follows here. */
static int finish(struct follow *f)
{
    struct mu_reply reply;
    hide_status(f);
    const struct mu_request req = {.method = "GET",
                                   .path = mu_client_path(f->c, "/agent/runs", f->opts->id, "")};
    int r = mu_client_call(f->c, &req, &reply);
    if (r) {
        return r;
    }
    if (!f->wrote) {
        write_text(f, mu_json_get_bytes(reply.root, "output"));
    }
    end_line(f);
    print_failure(reply.root);
    return 0;
}

int mu_client_follow(struct mu_client *c, const struct mu_follow *opts, char *ret_state,
                     size_t size)
{
    struct follow f = {
        .c = c, .opts = opts, .started_ms = mu_env_mono_ms(&mu_env_real), .drawn_ms = -1000};
    struct sigaction on = {.sa_handler = on_interrupt}, before;
    presses = 0;
    sigemptyset(&on.sa_mask);
    sigaction(SIGINT, &on, &before);
    mu_buf_init(&f.error_body, 1 << 20);
    int r = follow_loop(&f);
    if (r == 0 && !opts->events) {
        r = finish(&f);
    }
    hide_status(&f);
    mu_buf_fini(&f.error_body);
    sigaction(SIGINT, &before, NULL);
    snprintf(ret_state, size, "%s", f.state);
    return r;
}

/* --- waiting and outcomes --- */

bool mu_state_ended(mu_bytes state)
{
    return mu_bytes_is(state, "SUCCEEDED") || mu_bytes_is(state, "FAILED") ||
           mu_bytes_is(state, "CANCELLED");
}

int mu_state_exit(mu_bytes state)
{
    return mu_bytes_is(state, "SUCCEEDED") ? MU_EXIT_OK : MU_EXIT_FAILED;
}

int mu_client_wait(struct mu_client *c, const char *id, int64_t seconds, struct mu_reply *ret)
{
    int64_t end = mu_env_mono_ms(&mu_env_real) + seconds * 1000;
    char run[256];
    snprintf(run, sizeof run, "%s", id);
    for (int breaks = 0;;) {
        char suffix[32];
        mu_arena_fini(&c->arena); /* the answers of a long wait would add up */
        int64_t started = mu_env_mono_ms(&mu_env_real), left = 50;
        if (seconds >= 0) {
            left = MU_MIN((end - started + 999) / 1000, left);
            left = MU_MAX(left, 0);
        }
        snprintf(suffix, sizeof suffix, "?wait=%lld", (long long)left);
        const struct mu_request req = {.method = "GET",
                                       .path = mu_client_path(c, "/agent/runs", run, suffix),
                                       .timeout_ms = left * 1000 + 15000,
                                       .quiet = breaks < MAX_BREAKS};
        int r = mu_client_call(c, &req, ret);
        if (r == 0) {
            breaks = 0;
            if (mu_state_ended(mu_json_get_bytes(ret->root, "state"))) {
                return 0;
            }
        } else if (ret->status >= 400 && r != MU_EXIT_NO_SERVER) {
            return req.quiet ? mu_client_refused(c, ret) : r;
        } else if (++breaks > MAX_BREAKS) {
            return r;
        }
        int64_t now = mu_env_mono_ms(&mu_env_real);
        if (seconds >= 0 && now >= end) {
            return r ? r : MU_EXIT_TIMEOUT;
        }
        if (now - started < 200) { /* a server that does not hold the answer is not hammered */
            struct timespec pause = {.tv_nsec = 300000000};
            nanosleep(&pause, NULL);
        }
    }
}

void mu_print_outcome(yyjson_val *run)
{
    mu_bytes output = mu_json_get_bytes(run, "output");
    if (output.len) {
        mu_ui_text(output);
        if (output.ptr[output.len - 1] != '\n') {
            putchar('\n');
        }
    }
    if (mu_state_ended(mu_json_get_bytes(run, "state"))) {
        print_failure(run);
    }
}
