/* Files of a commit without a work tree: the tree's list says which, cat-file brings them. */
#include <errno.h>
#include <stdio.h>
#include <uv.h>

#include "base/encode.h"
#include "exec/git/git_int.h"
#include "io/folder.h"

enum { PATH_LONGEST = 512 };

struct mu_git_reading {
    struct mu_git_read_request req;
    struct mu_git_file *files;
    char (*hashes)[MU_GIT_COMMIT + 1];
    size_t n, bytes;
    bool more;
};

/* --- what is wanted of the tree --- */

static bool path_ok(mu_bytes path)
{
    for (size_t i = 0; i < path.len; i++) {
        if ((unsigned char)path.ptr[i] < 0x20 || path.ptr[i] == 0x7f) {
            return false;
        }
    }
    return path.len <= PATH_LONGEST && mu_bytes_is_path(path) && mu_utf8_valid(path);
}

static bool below_root(const struct mu_git_read_request *req, mu_bytes path)
{
    mu_bytes name = mu_str(req->name);
    for (const char *const *root = req->roots; *root; root++) {
        mu_bytes rest = mu_bytes_from(path, strlen(*root));
        unsigned slashes = 0;
        if (!mu_bytes_starts(path, mu_str(*root)) || !mu_bytes_starts(rest, MU_B("/"))) {
            continue;
        }
        for (size_t i = 1; i < rest.len; i++) {
            slashes += rest.ptr[i] == '/';
        }
        bool named = mu_bytes_ends(rest, name) && rest.ptr[rest.len - name.len - 1] == '/';
        return named && slashes <= req->max_depth;
    }
    return false;
}

static bool is_hash(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        if (mu_hex_value(t.ptr[i]) < 0) {
            return false;
        }
    }
    return t.len == MU_GIT_COMMIT;
}

/* "100644 blob <hash> <size>\t<path>": a file that is none of ours, a link or a submodule is passed
 * over. */
static int take_line(struct mu_git_job *job, mu_bytes line)
{
    struct mu_git_reading *rd = job->reading;
    int64_t size = -1;
    mu_bytes path = line, head = mu_bytes_split(&path, '\t');
    mu_bytes mode = mu_bytes_split(&head, ' '), type = mu_bytes_split(&head, ' ');
    mu_bytes hash = mu_bytes_split(&head, ' ');
    bool file = mu_bytes_is(mode, "100644") || mu_bytes_is(mode, "100755");
    if (!file || !mu_bytes_is(type, "blob") || !is_hash(hash) || !path.ptr ||
        mu_bytes_i64(mu_bytes_trim(head), &size) < 0 || size < 0 || !path_ok(path) ||
        !below_root(&rd->req, path)) {
        return 0;
    }
    if ((size_t)size > rd->req.max_file_bytes || rd->n == MU_GIT_READ_FILES ||
        rd->bytes + (size_t)size > MU_GIT_READ_BYTES) {
        rd->more = true;
        return 0;
    }
    rd->files[rd->n].path = mu_arena_dup(&job->arena, path);
    if (!rd->files[rd->n].path.ptr) {
        return -ENOMEM;
    }
    memcpy(rd->hashes[rd->n], hash.ptr, MU_GIT_COMMIT);
    rd->bytes += (size_t)size;
    rd->n++;
    return 0;
}

/* --- the texts --- */

static void told(struct mu_git_job *job, const struct mu_git_files *files)
{
    struct mu_git_reading *rd = job->reading;
    job->reading = NULL;
    rd->req.done(rd->req.arg, files ? 0 : job->result, files, files ? NULL : job->why);
    mu_free(rd->files);
    mu_free(rd->hashes);
    mu_free(rd);
}

void mu_git_read_failed_(struct mu_git_job *job)
{
    told(job, NULL);
}

static void tell(struct mu_git_job *job)
{
    struct mu_git_reading *rd = job->reading;
    struct mu_git_files files = {.files = rd->files, .n = rd->n, .more = rd->more};
    memcpy(files.commit, job->commit, sizeof files.commit);
    told(job, &files);
    mu_git_job_end_(job, NULL);
}

/* "<hash> blob <size>\n<bytes>\n" for each that was asked for, in that order. */
static bool split_texts(struct mu_git_job *job)
{
    struct mu_git_reading *rd = job->reading;
    mu_bytes rest = mu_buf_bytes(&job->out);
    for (size_t i = 0; i < rd->n; i++) {
        int64_t size;
        mu_bytes head = mu_bytes_split(&rest, '\n');
        mu_bytes hash = mu_bytes_split(&head, ' '), type = mu_bytes_split(&head, ' ');
        if (!mu_bytes_is(hash, rd->hashes[i]) || !mu_bytes_is(type, "blob") ||
            mu_bytes_i64(head, &size) < 0 || size < 0 || (size_t)size >= rest.len) {
            return false;
        }
        rd->files[i].text = mu_bytes_head(rest, (size_t)size);
        rest = mu_bytes_from(rest, (size_t)size + 1);
    }
    return true;
}

static void texts_there(struct mu_git_job *job, const struct mu_process_result *result)
{
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "reading files", result);
    } else if (job->out.failed) {
        mu_git_fail_(job, job->out.failed, "reading files: %s", mu_err_text(job->out.failed));
    } else if (!split_texts(job)) {
        mu_git_fail_(job, MU_E_UNAVAILABLE, "reading files: git's answer was not understood");
    } else {
        tell(job);
    }
}

static void listed(struct mu_git_job *job, const struct mu_process_result *result)
{
    struct mu_git_reading *rd = job->reading;
    struct mu_buf wanted;
    if (result->end == MU_PROCESS_FLOOD) {
        mu_git_fail_(job, MU_E_TOO_LARGE, "the folders hold too many files");
        return;
    }
    if (result->end != MU_PROCESS_EXITED || result->code != 0) {
        mu_git_failed_(job, "listing files", result);
        return;
    }
    mu_bytes rest = mu_buf_bytes(&job->out);
    int r = job->out.failed;
    while (r == 0 && rest.ptr) {
        r = take_line(job, mu_bytes_split(&rest, '\0'));
    }
    mu_buf_init(&wanted, MU_GIT_READ_FILES * (MU_GIT_COMMIT + 1));
    for (size_t i = 0; i < rd->n; i++) {
        mu_buf_add_str(&wanted, rd->hashes[i]);
        mu_buf_add_char(&wanted, '\n');
    }
    job->input =
        rd->n && !wanted.failed ? mu_arena_dup(&job->arena, mu_buf_bytes(&wanted)) : MU_B_NONE;
    mu_buf_fini(&wanted);
    if (r < 0 || (rd->n && !job->input.ptr)) {
        mu_git_fail_(job, r < 0 ? r : -ENOMEM, "out of memory");
    } else if (rd->n == 0) {
        tell(job);
    } else {
        const char *const list[] = {MU_GIT, "-C", job->mirror->path, "cat-file", "--batch"};
        mu_git_step_(job, list, MU_ARRAY_LEN(list), texts_there);
    }
}

static void list_tree(struct mu_git_job *job)
{
    const char *const head[] = {MU_GIT, "-C", job->mirror->path, "ls-tree",   "-r",
                                "-z",   "-l", "--full-tree",     job->commit, "--"};
    const char *list[MU_ARRAY_LEN(head) + MU_GIT_READ_ROOTS];
    size_t n = MU_ARRAY_LEN(head);
    memcpy(list, head, sizeof head);
    for (const char *const *root = job->reading->req.roots; *root; root++) {
        list[n++] = *root;
    }
    mu_git_step_(job, list, n, listed);
}

/* --- a mirror that was fetched for this counts like any other --- */

struct weighing {
    uv_work_t work;
    struct mu_git_job *job;
    const char *path;
    int64_t bytes;
};

static void weigh_now(uv_work_t *w)
{
    struct weighing *x = MU_CONTAINER(w, struct weighing, work);
    x->bytes = mu_folder_bytes(x->path);
}

static void weighed(uv_work_t *w, int status)
{
    struct weighing *x = MU_CONTAINER(w, struct weighing, work);
    struct mu_git_job *job = x->job;
    (void)status;
    mu_git_weighed_(job, MU_MAX(x->bytes, 0));
    mu_free(x);
    list_tree(job);
}

void mu_git_read_tree_(struct mu_git_job *job)
{
    struct weighing *x = job->fetched ? mu_calloc(1, sizeof *x) : NULL;
    if (x) {
        x->job = job;
        x->path = job->mirror->path;
        if (uv_queue_work(mu_loop_uv(job->cache->loop), &x->work, weigh_now, weighed) == 0) {
            return;
        }
        mu_free(x);
    }
    list_tree(job);
}

/* --- start --- */

int mu_git_read_start(struct mu_git_cache *g, const struct mu_git_read_request *req)
{
    struct mu_git_reading *rd = mu_calloc(1, sizeof *rd);
    size_t n_roots = 0;
    while (req->roots[n_roots]) {
        n_roots++;
    }
    MU_CHECK(n_roots > 0 && n_roots <= MU_GIT_READ_ROOTS);
    if (rd) {
        rd->req = *req;
        rd->files = mu_calloc(MU_GIT_READ_FILES, sizeof *rd->files);
        rd->hashes = mu_calloc(MU_GIT_READ_FILES, sizeof *rd->hashes);
    }
    struct mu_git_job *job = rd && rd->files && rd->hashes
                                 ? mu_git_job_new_(g, req->url, req->ref, 0, req->credential)
                                 : NULL;
    if (!job) {
        if (rd) {
            mu_free(rd->files);
            mu_free(rd->hashes);
        }
        mu_free(rd);
        return -ENOMEM;
    }
    job->reading = rd;
    return 0;
}
