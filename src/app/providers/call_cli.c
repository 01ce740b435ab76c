/* Calls of programs (oz-providers.md 7): the agent command lines, and the shell. */
#include <errno.h>
#include <stdio.h>

#include "app/providers/providers_int.h"
#include "base/log.h"
#include "io/folder.h"

enum {
    ARG_MAX_BYTES = 131071, /* the kernel's MAX_ARG_STRLEN without the NUL */
    DEFAULT_TIMEOUT_MS = 300000,
    DEFAULT_OUTPUT = 20 << 20,
    KILL_MS = 5000,
    REMOVE_RETRY_MS = 1000,
};

static const char failed[] = "CLI provider failed:";
static const char limited[] = "CLI rate limited:";
static const char script_name[] = "script.sh";

/* --- what the program gets --- */

static bool allowed(mu_bytes name, const char *const *more)
{
    static const char *const always[] = {"PATH", "HOME", "USER", "LANG", "TERM", "TMPDIR"};
    for (size_t i = 0; i < MU_ARRAY_LEN(always); i++) {
        if (mu_bytes_is(name, always[i])) {
            return true;
        }
    }
    for (; more && *more; more++) {
        if (mu_bytes_is(name, *more)) {
            return true;
        }
    }
    return mu_bytes_starts(name, MU_B("LC_"));
}

static bool names_secret(mu_bytes name)
{
    static const char *const words[] = {"KEY",  "TOKEN",      "SECRET", "PASS",
                                        "AUTH", "CREDENTIAL", "PROXY"};
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_find_nocase(name, mu_str(words[i])) >= 0) {
            return true;
        }
    }
    return false;
}

static int build_env(struct mu_provider_call *c, const struct mu_call_request *req)
{
    static const char *const none[] = {NULL};
    const char *const *all = c->p->opts.environ_ ? c->p->opts.environ_ : none;
    size_t n = 0;
    while (all[n]) {
        n++;
    }
    const char **env = mu_arena_calloc(&c->arena, (n + 2) * sizeof *env);
    if (!env) {
        return -ENOMEM;
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        mu_bytes value = mu_str(all[i]), name = mu_bytes_split(&value, '=');
        if (!value.ptr || mu_bytes_is(name, "OZ_RUN_ID") || !allowed(name, c->pr->conf->cli_env)) {
            continue;
        }
        int r = names_secret(name) ? mu_call_secret(c, value) : 0;
        if (r < 0) {
            return r;
        }
        env[used++] = all[i];
    }
    env[used] = mu_arena_printf(&c->arena, "OZ_RUN_ID=%s", req->run_id).ptr;
    c->child.env = env;
    return env[used] ? 0 : -ENOMEM;
}

/* The prompt, behind what was said earlier in its conversation. */
static mu_bytes conversation(struct mu_arena *a, const struct mu_call_request *req)
{
    if (req->n_turns == 0) {
        return req->prompt.ptr ? req->prompt : MU_B("");
    }
    struct mu_buf b;
    mu_buf_init(&b, a->max);
    mu_buf_add(&b, MU_B("Earlier in this conversation:\n\n"));
    for (size_t i = 0; i < req->n_turns; i++) {
        mu_buf_add(&b, MU_B("User:\n"));
        mu_buf_add(&b, req->turns[i].prompt);
        mu_buf_add(&b, MU_B("\n\nAgent:\n"));
        mu_buf_add(&b, req->turns[i].answer);
        mu_buf_add(&b, MU_B("\n\n"));
    }
    mu_buf_add(&b, MU_B("Now:\n"));
    mu_buf_add(&b, req->prompt);
    mu_bytes all = b.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return all;
}

static mu_bytes join(struct mu_arena *a, const mu_bytes *parts, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        len += parts[i].len;
    }
    char *dst = mu_arena_alloc(a, len + 1), *at = dst;
    for (size_t i = 0; dst && i < n; i++) {
        if (parts[i].len) {
            memcpy(at, parts[i].ptr, parts[i].len);
            at += parts[i].len;
        }
    }
    if (!dst) {
        return MU_B_NONE;
    }
    *at = 0;
    return mu_bytes_of(dst, len);
}

/* stdin: the model's line (only when one was configured), the system text, a blank line, the
 * prompt. */
static mu_bytes stdin_text(struct mu_arena *a, const struct mu_call_request *req, mu_bytes talk)
{
    bool asked;
    const mu_bytes parts[] = {
        req->model_given ? MU_B("[model:") : MU_B_NONE,
        req->model_given ? req->model : MU_B_NONE,
        req->model_given ? MU_B("]\n") : MU_B_NONE,
        mu_call_system(req, &asked),
        MU_B("\n\n"),
        talk,
    };
    return join(a, parts, MU_ARRAY_LEN(parts));
}

/* As an argument the prompt stands alone, but for a system text that somebody asked for. */
static mu_bytes argument_text(struct mu_arena *a, const struct mu_call_request *req, mu_bytes talk)
{
    bool asked;
    mu_bytes system = mu_call_system(req, &asked);
    const mu_bytes parts[] = {asked ? system : MU_B_NONE, asked ? MU_B("\n\n") : MU_B_NONE, talk};
    return join(a, parts, MU_ARRAY_LEN(parts));
}

static bool has_placeholder(const char *const *args, const char *word)
{
    for (; args && *args; args++) {
        if (strcmp(*args, word) == 0) {
            return true;
        }
    }
    return false;
}

/* 0; 1 = the call ends with a message of its own; < 0. */
static int check_argument(struct mu_provider_call *c, mu_bytes text)
{
    char var[64], words[256];
    if (mu_bytes_find_char(text, 0) >= 0) {
        mu_call_fail_soon(c, MU_CALL_BAD_REQUEST, failed,
                          MU_B("the prompt holds a NUL character, which no argument can carry"));
        return 1;
    }
    if (text.len > ARG_MAX_BYTES) {
        mu_provider_variable(mu_str(c->pr->key), var, sizeof var);
        snprintf(words, sizeof words,
                 "the prompt is too long for an argument (%d bytes at most): set "
                 "OZ_PROVIDER_%s_CLI_PROMPT_MODE=stdin",
                 ARG_MAX_BYTES, var);
        mu_call_fail_soon(c, MU_CALL_CONFIG, failed, mu_str(words));
        return 1;
    }
    return 0;
}

/* Placeholders are whole arguments. A prompt that begins with a dash is passed as it is: put "--"
 * in front of {prompt} where the program would take it for an option. */
static int build_argv(struct mu_provider_call *c, const struct mu_call_request *req)
{
    const struct mu_provider_conf *conf = c->pr->conf;
    static const char *const none[] = {NULL};
    const char *const *args = conf->cli_args ? conf->cli_args : none;
    bool placed = has_placeholder(args, "{prompt}");
    bool as_arg = placed || conf->cli_prompt_arg;
    mu_bytes talk = conversation(&c->arena, req);
    mu_bytes text = !talk.ptr ? MU_B_NONE
                    : as_arg  ? argument_text(&c->arena, req, talk)
                              : stdin_text(&c->arena, req, talk);
    mu_bytes model = mu_arena_dup(&c->arena, req->model);
    mu_bytes run_id = mu_arena_dup(&c->arena, mu_str(req->run_id));
    size_t n = 0;
    while (args[n]) {
        n++;
    }
    const char **argv = mu_arena_calloc(&c->arena, (n + 3) * sizeof *argv);
    mu_bytes cmd = mu_arena_dup(&c->arena, mu_str(conf->cli_cmd));
    if (!text.ptr || !model.ptr || !run_id.ptr || !argv || !cmd.ptr) {
        return -ENOMEM;
    }
    int r = as_arg ? check_argument(c, text) : 0;
    if (r != 0) {
        return r;
    }
    size_t used = 0;
    argv[used++] = cmd.ptr;
    for (size_t i = 0; i < n; i++) {
        mu_bytes arg = strcmp(args[i], "{prompt}") == 0  ? text
                       : strcmp(args[i], "{model}") == 0 ? model
                       : strcmp(args[i], "{run_id}") == 0
                           ? run_id
                           : mu_arena_dup(&c->arena, mu_str(args[i]));
        if (!arg.ptr) {
            return -ENOMEM;
        }
        argv[used++] = arg.ptr;
    }
    if (as_arg && !placed) {
        argv[used] = text.ptr;
    }
    c->child.argv = argv;
    c->child.input = as_arg ? MU_B_NONE : text;
    return 0;
}

/* The script is a file, so that what it reads from stdin is not its own text. */
static int build_shell(struct mu_provider_call *c, const struct mu_call_request *req)
{
    struct mu_call_child *ch = &c->child;
    const char **argv = mu_arena_calloc(&c->arena, 3 * sizeof *argv);
    size_t size = ch->dir_size + 1 + sizeof script_name;
    ch->script_path = mu_arena_calloc(&c->arena, size);
    ch->script = mu_arena_dup(&c->arena, req->prompt);
    if (!argv || !ch->script_path || !ch->script.ptr) {
        return -ENOMEM;
    }
    argv[0] = "/bin/sh";
    argv[1] = ch->script_path;
    ch->argv = argv;
    return 0;
}

/* --- output --- */

static void stop(struct mu_provider_call *c)
{
    if (!c->child.killed && c->child.process) {
        c->child.killed = true;
        c->p->opts.process->kill(c->child.process);
    }
}

static void keep_tail(struct mu_call_child *ch, mu_bytes piece)
{
    if (piece.len >= MU_CALL_TAIL) {
        memcpy(ch->tail, piece.ptr + piece.len - MU_CALL_TAIL, MU_CALL_TAIL);
        ch->tail_len = MU_CALL_TAIL;
        return;
    }
    size_t keep = MU_MIN(ch->tail_len, MU_CALL_TAIL - piece.len);
    memmove(ch->tail, ch->tail + ch->tail_len - keep, keep);
    memcpy(ch->tail + keep, piece.ptr, piece.len);
    ch->tail_len = keep + piece.len;
}

static void on_output(void *arg, mu_bytes piece)
{
    struct mu_provider_call *c = arg;
    struct mu_call_child *ch = &c->child;
    if (c->aborted || ch->feed_error < 0 || piece.len == 0) {
        return;
    }
    keep_tail(ch, piece);
    ch->feed_error = mu_cli_reader_feed(ch->reader, piece);
    if (ch->feed_error < 0) {
        stop(c);
    }
}

/* --- the verdict --- */

static void not_started(struct mu_provider_call *c, int why)
{
    char var[64], words[256];
    mu_provider_variable(mu_str(c->pr->key), var, sizeof var);
    bool config = why == ENOENT || why == EACCES || why == ENOTDIR || why == E2BIG ||
                  why == ENOEXEC || why == EPERM;
    snprintf(words, sizeof words, "the program of OZ_PROVIDER_%s_CLI_CMD cannot be started: %s",
             var, mu_err_text(-why));
    mu_provider_call_fail(c, config ? MU_CALL_CONFIG : MU_CALL_UNAVAILABLE, failed, mu_str(words));
}

static bool is_limit_exit(const struct mu_call_child *ch, int code)
{
    for (size_t i = 0; i < ch->n_limit_exits; i++) {
        if (ch->limit_exits[i] == code) {
            return true;
        }
    }
    return false;
}

/* What a failed program said: in its own format, else on stderr, else on stdout. */
static mu_bytes last_words(const struct mu_provider_call *c, const struct mu_process_result *res,
                           const struct mu_cli_verdict *v)
{
    mu_bytes own = mu_bytes_trim(mu_str(v->failed ? v->text : ""));
    mu_bytes err = mu_bytes_trim(res->err_text);
    mu_bytes out = mu_bytes_trim(mu_bytes_of(c->child.tail, c->child.tail_len));
    return own.len ? own : err.len ? err : out;
}

static void judge_failed(struct mu_provider_call *c, const struct mu_process_result *res,
                         const struct mu_cli_verdict *v)
{
    char words[64];
    bool exited = res->end == MU_PROCESS_EXITED;
    mu_bytes said = last_words(c, res, v);
    bool limit = !c->child.shell && (v->rate_limited || mu_cli_rate_limited(said) ||
                                     (exited && is_limit_exit(&c->child, res->code)));
    if (!said.len) {
        snprintf(words, sizeof words, "%s %d", exited ? "exit code" : "ended by signal",
                 exited ? res->code : res->signal);
        said = mu_str(words);
    }
    mu_provider_call_fail(c, limit ? MU_CALL_RATE_LIMITED : MU_CALL_CLI_FAILED,
                          limit ? limited : failed, said);
}

static void judge_ended(struct mu_provider_call *c, const struct mu_process_result *res)
{
    struct mu_cli_verdict v = {0};
    mu_bytes answer = MU_B_NONE;
    int r = c->child.feed_error < 0 ? c->child.feed_error
                                    : mu_cli_reader_end(c->child.reader, &v, &answer);
    c->result.tokens_in = v.tokens_in;
    c->result.tokens_out = v.tokens_out;
    c->result.truncated = v.truncated;
    if (c->refused) {
        mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
    } else if (r == MU_E_TOO_LARGE) {
        mu_provider_call_fail(c, MU_CALL_CLI_OUTPUT_LIMIT, failed,
                              MU_B("a line of its output is too long"));
    } else if (r < 0) {
        mu_provider_call_fail(c, MU_CALL_BAD_RESPONSE, failed, mu_str(mu_err_text(r)));
    } else if (res->end != MU_PROCESS_EXITED || res->code != 0 || v.failed) {
        judge_failed(c, res, &v);
    } else if (!c->child.shell && !c->had_text && !mu_bytes_trim(answer).len) {
        mu_provider_call_fail(c, MU_CALL_BAD_RESPONSE, failed, MU_B("the output was empty"));
    } else if (answer.ptr) {
        c->result.final_text = mu_bytes_trim(answer);
    }
}

static void judge(struct mu_provider_call *c, const struct mu_process_result *res)
{
    char words[96];
    if (c->aborted) {
        mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
        return;
    }
    switch (res->end) {
    case MU_PROCESS_NOT_STARTED:
        not_started(c, res->start_errno);
        return;
    case MU_PROCESS_TIMEOUT:
        snprintf(words, sizeof words, "no end within %lld ms", (long long)c->child.timeout_ms);
        mu_provider_call_fail(c, MU_CALL_CLI_TIMEOUT, failed, mu_str(words));
        return;
    case MU_PROCESS_FLOOD:
        snprintf(words, sizeof words, "more output than %lld bytes",
                 (long long)c->child.max_output);
        mu_provider_call_fail(c, MU_CALL_CLI_OUTPUT_LIMIT, failed, mu_str(words));
        return;
    case MU_PROCESS_EXITED:
    case MU_PROCESS_SIGNALED:
    case MU_PROCESS_KILLED:
        break;
    }
    judge_ended(c, res);
}

/* What a program asked of its service is not known: whatever spoke or ran to an end counts. */
static bool counts(const struct mu_provider_call *c, const struct mu_process_result *res)
{
    switch (c->result.cls) {
    case MU_CALL_OK:
    case MU_CALL_BAD_RESPONSE:
    case MU_CALL_CLI_TIMEOUT:
    case MU_CALL_CLI_OUTPUT_LIMIT:
        return true;
    case MU_CALL_CANCELLED:
        return res->end != MU_PROCESS_NOT_STARTED;
    case MU_CALL_CLI_FAILED:
        return c->had_delta;
    default:
        return false;
    }
}

static void on_process_done(void *arg, const struct mu_process_result *res)
{
    struct mu_provider_call *c = arg;
    c->child.process = NULL;
    judge(c, res);
    c->result.counted = counts(c, res);
    if (res->end == MU_PROCESS_EXITED || res->end == MU_PROCESS_SIGNALED) {
        c->result.status = res->code;
        c->result.is_exit_code = true;
    }
    mu_call_finish(c);
}

/* --- start --- */

static int start_process(struct mu_provider_call *c)
{
    struct mu_call_child *ch = &c->child;
    const struct mu_process_request req = {
        .argv = ch->argv,
        .env = ch->env,
        .cwd = ch->cwd ? ch->cwd : ch->dir,
        .input = ch->input,
        .timeout_ms = ch->timeout_ms,
        .kill_ms = KILL_MS,
        .max_output = (size_t)ch->max_output,
        .on_output = on_output,
        .done = on_process_done,
        .arg = c,
    };
    c->phase = MU_CALL_RUNNING;
    return c->p->opts.process->start(c->p->opts.core, &req, &ch->process);
}

static void prepare_run(struct mu_job *job)
{
    struct mu_call_child *ch = MU_CONTAINER(job, struct mu_call_child, job);
    ch->made = mu_private_dir_make(ch->scratch, ch->run_id, ch->dir, ch->dir_size);
    if (ch->made == 0 && ch->shell) {
        ch->made = mu_private_dir_write(ch->dir, script_name, ch->script);
    }
}

static void prepare_done(struct mu_job *job)
{
    struct mu_call_child *ch = MU_CONTAINER(job, struct mu_call_child, job);
    struct mu_provider_call *c = MU_CONTAINER(ch, struct mu_provider_call, child);
    int r = ch->made;
    if (c->aborted || !job->ran) { /* not ran: the pool is closing */
        mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
        mu_call_finish(c);
        return;
    }
    if (r == 0) {
        if (ch->shell) {
            memcpy(ch->script_path, ch->dir, strlen(ch->dir));
            ch->script_path[strlen(ch->dir)] = '/';
            memcpy(ch->script_path + strlen(ch->dir) + 1, script_name, sizeof script_name);
        }
        r = start_process(c);
    }
    if (r < 0) {
        char words[128];
        snprintf(words, sizeof words, "%s: %s", ch->made < 0 ? "no private folder" : "no process",
                 mu_err_text(r));
        mu_provider_call_fail(c, MU_CALL_UNAVAILABLE, failed, mu_str(words));
        mu_call_finish(c);
    }
}

static int copy_settings(struct mu_provider_call *c, const struct mu_call_request *req)
{
    const struct mu_provider_conf *conf = c->pr->conf;
    struct mu_call_child *ch = &c->child;
    ch->shell = conf->type == MU_PROVIDER_SHELL;
    ch->format = ch->shell ? MU_CLI_TEXT : conf->cli_format;
    ch->timeout_ms = conf->cli_timeout_ms > 0 ? conf->cli_timeout_ms : DEFAULT_TIMEOUT_MS;
    ch->max_output = conf->cli_max_output > 0 ? conf->cli_max_output : DEFAULT_OUTPUT;
    /* a reload may take the configuration away while the program runs */
    size_t exits = conf->n_cli_rate_limit_exit;
    int64_t *copy = mu_arena_calloc(&c->arena, (exits + 1) * sizeof *copy);
    ch->run_id = mu_arena_dup(&c->arena, mu_str(req->run_id)).ptr;
    ch->scratch = c->p->opts.scratch_dir;
    if (!copy || !ch->run_id) {
        return -ENOMEM;
    }
    if (exits) {
        memcpy(copy, conf->cli_rate_limit_exit, exits * sizeof *copy);
    }
    ch->limit_exits = copy;
    ch->n_limit_exits = exits;
    if (conf->cli_cwd && conf->cli_cwd[0]) {
        ch->cwd = mu_arena_dup(&c->arena, mu_str(conf->cli_cwd)).ptr;
        if (!ch->cwd) {
            return -ENOMEM;
        }
    }
    if (!ch->cwd || ch->shell) {
        ch->dir_size = mu_private_dir_size(ch->scratch, ch->run_id);
        ch->dir = mu_arena_calloc(&c->arena, ch->dir_size);
        return ch->dir ? 0 : -ENOMEM;
    }
    return 0;
}

static bool refused_early(struct mu_provider_call *c, const struct mu_call_request *req)
{
    char var[64], words[128];
    const struct mu_provider_conf *conf = c->pr->conf;
    if (req->n_images) {
        mu_call_fail_soon(c, MU_CALL_CONFIG, failed, MU_B("it cannot take images"));
        return true;
    }
    if (conf->type == MU_PROVIDER_CLI && !mu_bytes_trim(mu_str(conf->cli_cmd)).len) {
        mu_provider_variable(mu_str(c->pr->key), var, sizeof var);
        snprintf(words, sizeof words, "no command is configured: set OZ_PROVIDER_%s_CLI_CMD", var);
        mu_call_fail_soon(c, MU_CALL_CONFIG, failed, mu_str(words));
        return true;
    }
    return false;
}

int mu_call_cli_start(struct mu_provider_call *c, const struct mu_call_request *req)
{
    struct mu_call_child *ch = &c->child;
    if (refused_early(c, req)) {
        return 0;
    }
    int r = mu_call_secret(c, mu_str(c->pr->conf->api_key));
    r = r < 0 ? r : copy_settings(c, req);
    r = r < 0 ? r : build_env(c, req);
    r = r < 0 ? r : ch->shell ? build_shell(c, req) : build_argv(c, req);
    if (r != 0) {
        if (ch->dir) {
            ch->dir[0] = 0;
        }
        return MU_MIN(r, 0);
    }
    r = mu_cli_reader_new(ch->format, (size_t)ch->max_output, mu_call_delta, c, &ch->reader);
    if (r < 0) {
        return r;
    }
    if (!ch->dir) {
        return start_process(c);
    }
    c->phase = MU_CALL_PREPARING;
    ch->job = (struct mu_job){.run = prepare_run, .done = prepare_done, .loop = c->p->opts.core};
    return mu_work_submit(c->p->opts.work, &ch->job);
}

void mu_call_cli_abort(struct mu_provider_call *c)
{
    if (c->phase == MU_CALL_RUNNING) {
        stop(c);
    }
}

/* --- the end of the private directory --- */

static void remove_run(struct mu_job *job)
{
    struct mu_call_child *ch = MU_CONTAINER(job, struct mu_call_child, job);
    ch->made = mu_folder_remove(ch->dir);
}

static void remove_done(struct mu_job *job)
{
    struct mu_call_child *ch = MU_CONTAINER(job, struct mu_call_child, job);
    if (job->ran && ch->made < 0) {
        mu_log(MU_LOG_WARN, "provider.folder_left", MU_KC("run_id", ch->run_id),
               MU_KC("reason", mu_err_text(ch->made)));
    }
    mu_call_free(MU_CONTAINER(ch, struct mu_provider_call, child));
}

static void remove_again(struct mu_timer *t)
{
    struct mu_call_child *ch = MU_CONTAINER(t, struct mu_call_child, retry);
    mu_call_cli_remove(MU_CONTAINER(ch, struct mu_provider_call, child));
}

void mu_call_cli_remove(struct mu_provider_call *c)
{
    struct mu_call_child *ch = &c->child;
    ch->job = (struct mu_job){.run = remove_run, .done = remove_done, .loop = c->p->opts.core};
    int r = mu_work_submit(c->p->opts.work, &ch->job);
    if (r == 0) {
        return;
    }
    ch->retry.fn = remove_again;
    if (r != MU_E_BUSY || mu_timer_set(&ch->retry, REMOVE_RETRY_MS) < 0) {
        mu_log(MU_LOG_WARN, "provider.folder_left", MU_KC("run_id", ch->run_id),
               MU_KC("reason", mu_err_text(r)));
        mu_call_free(c); /* the next start sweeps */
    }
}
