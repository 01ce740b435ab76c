/* What a job does: ask what the ref is (git ls-remote), and unless that base exists already, with
 * the mirror to itself: fetch, check out, measure, put it in its place. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/encode.h"
#include "base/env.h"
#include "exec/git/git_int.h"
#include "io/folder.h"
#include "proto/repo.h"

enum { LARGE_TREE = 32 << 20, AFTER_MS = 10 /* the time of files lags behind the clock */ };

static void look(struct mu_git_job *job);
static void fetch(struct mu_git_job *job);
static void check_out(struct mu_git_job *job);

static void progress(struct mu_git_job *job, const char *text)
{
    MU_LIST_EACH(it, tmp, &job->checkouts)
    {
        struct mu_checkout *c = MU_CONTAINER(it, struct mu_checkout, link);
        if (c->req.progress) {
            c->req.progress(c->req.arg, text);
        }
    }
}

void mu_git_failed_(struct mu_git_job *job, const char *what,
                    const struct mu_process_result *result)
{
    if (result->end == MU_PROCESS_TIMEOUT) {
        mu_git_fail_(job, MU_E_TIMEOUT, "%s: not done after %lld s", what,
                     (long long)job->cache->settings.fetch_timeout_ms / 1000);
        return;
    }
    if (result->end == MU_PROCESS_NOT_STARTED) {
        mu_git_fail_(job, MU_E_UNAVAILABLE, "git could not be started: %s",
                     strerror(result->start_errno));
        return;
    }
    mu_bytes rest = result->err_text, best = MU_B("git failed without a word");
    while (rest.ptr) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(&rest, '\n'));
        if (mu_bytes_starts(line, MU_B("fatal:")) || mu_bytes_starts(line, MU_B("error:")) ||
            mu_bytes_starts(line, MU_B("ERROR:"))) {
            best = line;
        }
    }
    mu_git_fail_(job, MU_E_UNAVAILABLE, "%s: %.*s", what, (int)MU_MIN(best.len, 300), best.ptr);
}

static const char *const *args(struct mu_git_job *job, const char *const *list, size_t n)
{
    const char **argv = mu_arena_calloc(&job->arena, (n + 1) * sizeof *argv);
    if (argv) {
        memcpy(argv, list, n * sizeof *argv);
    }
    return argv;
}

void mu_git_step_(struct mu_git_job *job, const char *const *list, size_t n,
                  void (*then)(struct mu_git_job *job, const struct mu_process_result *result))
{
    const char *const *argv = args(job, list, n);
    if (!argv) {
        mu_git_fail_(job, -ENOMEM, "out of memory");
        return;
    }
    mu_git_run_(job, argv, then);
}

/* --- what is the ref? --- */

static struct mu_git_answer *answer_of(struct mu_git_job *job)
{
    struct mu_git_mirror *m = job->mirror;
    for (unsigned i = 0; i < m->n_answers; i++) {
        if (!strcmp(m->answers[i].ref, job->ref)) {
            return &m->answers[i];
        }
    }
    return NULL;
}

static void remember(struct mu_git_job *job)
{
    struct mu_git_mirror *m = job->mirror;
    struct mu_git_answer *a = answer_of(job);
    if (!a && m->n_answers < MU_GIT_ANSWERS) {
        a = &m->answers[m->n_answers++];
    } else if (!a) {
        a = &m->answers[0];
        for (unsigned i = 1; i < m->n_answers; i++) {
            a = m->answers[i].at_ms < a->at_ms ? &m->answers[i] : a;
        }
    }
    snprintf(a->ref, sizeof a->ref, "%s", job->ref);
    memcpy(a->branch, job->branch, sizeof a->branch);
    memcpy(a->commit, job->commit, sizeof a->commit);
    a->at_ms = mu_loop_now_ms(job->cache->loop);
}

static void take_commit(struct mu_git_job *job, mu_bytes hash)
{
    memcpy(job->commit, hash.ptr, MU_GIT_COMMIT);
    job->commit[MU_GIT_COMMIT] = 0;
}

/* The server says what its HEAD is, and git passes that on as it came: here it becomes a path and a
 * part of a configuration. One that is no branch's name leaves HEAD detached. */
static void take_branch(struct mu_git_job *job, mu_bytes ref)
{
    mu_bytes name = mu_bytes_from(ref, 11); /* refs/heads/ */
    if (mu_bytes_starts(ref, MU_B("refs/heads/")) && name.len < sizeof job->branch &&
        mu_repo_ref_ok(name) && mu_bytes_find_char(name, '"') < 0) {
        memcpy(job->branch, name.ptr, name.len);
        job->branch[name.len] = 0;
    }
}

/* What a ref may be; the later wins. */
static const char *const forms[][2] = {
    {"refs/tags/", ""}, {"refs/tags/", "^{}"}, {"refs/heads/", ""}};

/* The lines of ls-remote: a branch wins over a tag, a tag's commit over its object. */
static void read_refs(struct mu_git_job *job)
{
    char wanted[240];
    mu_bytes rest = mu_buf_bytes(&job->out), ref = mu_str(job->ref);
    int best = 0;
    while (rest.ptr) {
        mu_bytes name = mu_bytes_split(&rest, '\n');
        mu_bytes hash = mu_bytes_split(&name, '\t');
        if (!name.ptr) {
            continue;
        }
        if (mu_bytes_starts(hash, MU_B("ref: "))) {
            if (!ref.len && mu_bytes_is(name, "HEAD")) {
                take_branch(job, mu_bytes_from(hash, 5));
            }
            continue;
        }
        int rank = !ref.len && mu_bytes_is(name, "HEAD") ? 1 : 0;
        for (int i = 0; ref.len && i < 3; i++) {
            snprintf(wanted, sizeof wanted, "%s%s%s", forms[i][0], job->ref, forms[i][1]);
            rank = mu_bytes_is(name, wanted) ? i + 1 : rank;
        }
        if (rank > best && mu_hex_is(hash, MU_GIT_COMMIT)) {
            best = rank;
            take_commit(job, hash);
            take_branch(job, name);
        }
    }
}

static void resolved(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "asking the repository", result);
        return;
    }
    job->admitted = true;
    read_refs(job);
    if (!job->commit[0]) {
        mu_git_fail_(job, MU_E_NOT_FOUND,
                     job->ref[0] ? "the repository has no branch or tag \"%s\""
                                 : "the repository has no commit%s",
                     job->ref);
        return;
    }
    remember(job);
    look(job);
}

void mu_git_resolve_(struct mu_git_job *job)
{
    struct mu_git_answer *known = answer_of(job);
    if (mu_hex_is(mu_str(job->ref), MU_GIT_COMMIT)) {
        take_commit(job, mu_str(job->ref));
        look(job);
        return;
    }
    if (known && mu_loop_now_ms(job->cache->loop) - known->at_ms < job->cache->settings.fresh_ms) {
        memcpy(job->commit, known->commit, sizeof job->commit);
        memcpy(job->branch, known->branch, sizeof job->branch);
        look(job);
        return;
    }
    const char **argv = mu_arena_calloc(&job->arena, 40 * sizeof *argv);
    const char *const head[] = {MU_GIT, "ls-remote", "--symref", "--", job->url, "HEAD"};
    size_t n = MU_ARRAY_LEN(head);
    if (!argv) {
        mu_git_fail_(job, -ENOMEM, "out of memory");
        return;
    }
    memcpy(argv, head, sizeof head);
    bool ok = true;
    for (size_t i = 0; job->ref[0] && i < MU_ARRAY_LEN(forms); i++) {
        argv[n] = mu_arena_printf(&job->arena, "%s%s%s", forms[i][0], job->ref, forms[i][1]).ptr;
        ok = ok && argv[n++];
    }
    if (!ok) {
        mu_git_fail_(job, -ENOMEM, "out of memory");
        return;
    }
    mu_git_run_(job, argv, resolved);
}

/* --- is it there? --- */

static struct mu_git_base *base_of(struct mu_git_job *job)
{
    char key[MU_GIT_KEY + 1];
    mu_git_base_key_(job->url, job->commit, job->index, key);
    return mu_git_base_find_(job->cache, key);
}

static void asked(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "asking the repository", result);
        return;
    }
    job->admitted = true;
    if (job->locked) {
        mu_git_locked_(job);
    } else {
        look(job);
    }
}

/* What others fetched with a credential is given to nobody whom the server does not answer: a
 * commit's hash, or somebody's question of a moment ago, opens nothing. True: it is being asked. */
static bool ask_first(struct mu_git_job *job)
{
    if (!job->mirror->closed || job->admitted) {
        return false;
    }
    const char *const list[] = {MU_GIT, "ls-remote", "--", job->url, "HEAD"};
    mu_git_step_(job, list, MU_ARRAY_LEN(list), asked);
    return true;
}

static void look(struct mu_git_job *job)
{
    if (ask_first(job)) {
        return;
    }
    struct mu_git_base *b = job->reading ? NULL : base_of(job);
    if (b) {
        job->warm = true;
        mu_git_job_end_(job, b);
        return;
    }
    if (job->mirror->busy) {
        mu_list_push(&job->mirror->waiting, &job->wait);
        return;
    }
    job->mirror->busy = job;
    job->locked = true;
    mu_git_locked_(job);
}

static void probed(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end == MU_PROCESS_EXITED && result->code == 0) {
        (job->reading ? mu_git_read_tree_ : check_out)(job);
    } else if (!job->fetched) {
        fetch(job);
    } else {
        mu_git_fail_(job, MU_E_NOT_FOUND, "the repository has no commit %s", job->commit);
    }
}

static void probe(struct mu_git_job *job)
{
    const char *commit = mu_arena_printf(&job->arena, "%s^{commit}", job->commit).ptr;
    if (!commit) {
        mu_git_fail_(job, -ENOMEM, "out of memory");
        return;
    }
    const char *const list[] = {MU_GIT, "-C", job->mirror->path, "cat-file", "-e", commit};
    mu_git_step_(job, list, MU_ARRAY_LEN(list), probed);
}

static void inited(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "making the mirror", result);
        return;
    }
    fetch(job);
}

void mu_git_locked_(struct mu_git_job *job)
{
    if (ask_first(job)) {
        return;
    }
    /* another job may have made it meanwhile */
    struct mu_git_base *b = job->reading ? NULL : base_of(job);
    if (b) {
        mu_git_job_end_(job, b);
    } else if (job->mirror->exists) {
        probe(job);
    } else {
        const char *const list[] = {MU_GIT, "init", "-q", "--bare", "--", job->mirror->path};
        mu_git_step_(job, list, MU_ARRAY_LEN(list), inited);
    }
}

/* --- fetch --- */

static void write_fetched(struct mu_git_mirror *m)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/muster-fetched", m->path);
    FILE *f = fopen(path, "we");
    if (f) {
        fprintf(f, "%lld %d\n", (long long)m->bytes, m->closed);
        m->exists = fclose(f) == 0;
    }
}

static void fetched_commit(struct mu_git_job *job, const struct mu_process_result *result)
{
    (void)result; /* a server may refuse single commits; whether it is there now is what counts */
    job->fetched = true;
    probe(job);
}

static void fetched(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "fetching", result);
        return;
    }
    job->mirror->closed = job->header != NULL;
    job->admitted = true;
    write_fetched(job->mirror);
    if (mu_hex_is(mu_str(job->ref), MU_GIT_COMMIT)) {
        const char *const list[] = {MU_GIT,  "-C",     job->mirror->path,
                                    "fetch", "-q",     "--no-write-fetch-head",
                                    "--",    job->url, job->commit};
        mu_git_step_(job, list, MU_ARRAY_LEN(list), fetched_commit);
        return;
    }
    job->fetched = true;
    probe(job);
}

static void fetch(struct mu_git_job *job)
{
    progress(job, "fetching the repository");
    const char *const list[] = {MU_GIT,
                                "-C",
                                job->mirror->path,
                                "fetch",
                                "-q",
                                "--force",
                                "--prune",
                                "--no-write-fetch-head",
                                "--",
                                job->url,
                                "+refs/heads/*:refs/heads/*",
                                "+refs/tags/*:refs/tags/*"};
    mu_git_step_(job, list, MU_ARRAY_LEN(list), fetched);
}

/* --- check out --- */

static int put(int at, const char *name, const char *text)
{
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    size_t n = strlen(text);
    ssize_t w = write(fd, text, n);
    int r = w == (ssize_t)n ? 0 : -EIO;
    return close(fd) < 0 ? -errno : r;
}

/* mkdir -p of everything before the last slash. */
static int parents(int at, const char *path)
{
    char part[300];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof part) {
            return -ENAMETOOLONG;
        }
        memcpy(part, path, n);
        part[n] = 0;
        if (mkdirat(at, part, 0755) < 0 && errno != EEXIST) {
            return -errno;
        }
    }
    return 0;
}

static int put_ref(int git, const char *prefix, const char *name, const char *text)
{
    char path[280];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    int r = parents(git, path);
    return r < 0 ? r : put(git, path, text);
}

/* Writes .git: refs, where the objects are, and a configuration that git needs for quick answers in
 * another file system (sandbox.md 8). */
static int compose(struct mu_git_job *job, int git)
{
    char head[300], line[60], config[2600], objects[4200], remote[300];
    snprintf(line, sizeof line, "%s\n", job->commit);
    snprintf(head, sizeof head, job->branch[0] ? "ref: refs/heads/%s\n" : "%s\n",
             job->branch[0] ? job->branch : job->commit);
    snprintf(remote, sizeof remote, "ref: refs/remotes/origin/%s\n", job->branch);
    snprintf(objects, sizeof objects, "%s/objects\n", job->mirror->path);
    int n =
        snprintf(config, sizeof config,
                 "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n"
                 "\tlogallrefupdates = true\n\tcheckStat = minimal\n\ttrustctime = false\n"
                 "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
                 job->url);
    if (job->branch[0] && n < (int)sizeof config) {
        snprintf(config + n, sizeof config - (size_t)n,
                 "[branch \"%s\"]\n\tremote = origin\n\tmerge = refs/heads/%s\n", job->branch,
                 job->branch);
    }
    int r = put_ref(git, "objects/info/", "alternates", objects);
    r = r < 0 ? r : put_ref(git, "info/", "exclude", ".oz/\n");
    r = r < 0 ? r : put(git, "HEAD", head);
    r = r < 0 ? r : put(git, "config", config);
    r = r < 0 ? r : parents(git, "refs/heads/");
    if (job->branch[0]) {
        r = r < 0 ? r : put_ref(git, "refs/heads/", job->branch, line);
        r = r < 0 ? r : put_ref(git, "refs/remotes/origin/", job->branch, line);
        r = r < 0 || job->ref[0] ? r : put_ref(git, "refs/remotes/origin/", "HEAD", remote);
    }
    return r;
}

void mu_git_weighed_(struct mu_git_job *job, int64_t bytes)
{
    job->cache->bytes += bytes - job->mirror->bytes;
    job->mirror->bytes = bytes;
    write_fetched(job->mirror);
}

struct measure {
    uv_work_t work;
    struct mu_git_job *job;
    char *tree, *mirror;
    int64_t tree_bytes, mirror_bytes;
};

/* git reads every file again that is not older, by whole seconds, than the index: it may have been
 * changed since without a trace. Nobody changes these, so the index is dated into the next second
 * once that has come: what is changed later has a later time. */
static void date_index(const struct mu_env *env, const char *tree)
{
    char path[4200];
    int64_t left = 1000 - mu_env_wall_ms(env) % 1000 + AFTER_MS;
    struct timespec wait = {left / 1000, (long)(left % 1000) * 1000000};
    (void)nanosleep(&wait, NULL);
    snprintf(path, sizeof path, "%s/.git/index", tree);
    (void)!utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW); /* else it is only slower */
}

static void measure_now(uv_work_t *w)
{
    struct measure *m = MU_CONTAINER(w, struct measure, work);
    m->tree_bytes = mu_folder_bytes(m->tree);
    if (m->tree_bytes >= LARGE_TREE) {
        date_index(m->job->cache->settings.env, m->tree);
    }
    m->mirror_bytes = mu_folder_bytes(m->mirror);
}

static void measured(uv_work_t *w, int status)
{
    struct measure *m = MU_CONTAINER(w, struct measure, work);
    struct mu_git_job *job = m->job;
    struct mu_git_cache *g = job->cache;
    (void)status;
    int64_t bytes = MU_MAX(m->tree_bytes, 0), mirror = MU_MAX(m->mirror_bytes, 0);
    mu_free(m->tree);
    mu_free(m);
    mu_git_weighed_(job, mirror);
    char key[MU_GIT_KEY + 1];
    mu_git_base_key_(job->url, job->commit, job->index, key);
    struct mu_git_base *b = mu_git_base_add_(g, job->mirror, key, job->commit, job->temp, bytes);
    if (!b) {
        mu_git_fail_(job, -EIO, "the checkout could not be stored: %s", strerror(errno));
        return;
    }
    job->temp = NULL;
    mu_git_job_end_(job, b);
}

static void checked_out(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "checking out", result);
        return;
    }
    char path[4200], inside[64];
    snprintf(path, sizeof path, "%s/tree/.git/objects/info", job->temp);
    snprintf(inside, sizeof inside, "/run/muster/git/%u\n", job->index);
    MU_AUTO_CLOSE int info = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct measure *m = mu_calloc(1, sizeof *m);
    snprintf(path, sizeof path, "%s/tree", job->temp);
    char *tree = mu_bytes_dup(mu_str(path));
    int r = info < 0 ? -errno : put(info, "alternates", inside);
    if (r == 0 && m && tree) {
        *m = (struct measure){.job = job, .tree = tree, .mirror = job->mirror->path};
        if (uv_queue_work(mu_loop_uv(job->cache->loop), &m->work, measure_now, measured) == 0) {
            return;
        }
    }
    mu_free(m);
    mu_free(tree);
    mu_git_fail_(job, r < 0 ? r : -ENOMEM, "the checkout could not be finished: %s",
                 mu_err_text(r < 0 ? r : -ENOMEM));
}

static void check_out(struct mu_git_job *job)
{
    struct mu_git_cache *g = job->cache;
    progress(job, "checking out");
    char path[4200];
    snprintf(path, sizeof path, "%s/tmp/%d-%u", g->settings.dir, (int)getpid(), g->temp_no++);
    job->temp = mu_arena_dup(&job->arena, mu_str(path)).ptr;
    const char *tree = mu_arena_printf(&job->arena, "%s/tree", path).ptr;
    const char *git = mu_arena_printf(&job->arena, "%s/tree/.git", path).ptr;
    int r = job->temp && tree && git ? 0 : -ENOMEM;
    if (r == 0 && (mkdir(job->temp, 0700) < 0 || mkdir(tree, 0755) < 0 || mkdir(git, 0755) < 0)) {
        r = -errno;
    }
    MU_AUTO_CLOSE int at = r < 0 ? -1 : open(git, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = r < 0 ? r : at < 0 ? -errno : compose(job, at);
    if (r < 0) {
        mu_git_fail_(job, r, "the checkout could not be made: %s", mu_err_text(r));
        return;
    }
    const char *const list[] = {MU_GIT, "-C", tree, "reset", "-q", "--hard", job->commit};
    mu_git_step_(job, list, MU_ARRAY_LEN(list), checked_out);
}
