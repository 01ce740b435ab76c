/* Which skills a repository has: a command of the server, answered from the mirror that checkouts
 * share (oz-api.md 15.1, oz-worker.md 16). */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "proto/repo.h"
#include "worker/skill.h"
#include "worker/worker_int.h"

enum {
    QUESTIONS_MAX = 64, /* at once */
    DEPTH_MAX = 4,
    FILE_MAX = 64 << 10,
    SKILLS_ARENA = 8 << 20,
    ID_MAX = 128,
};

static const char *const roots[] = {".agents/skills", ".claude/skills", ".codex/skills", NULL};

struct mu_question {
    struct mu_list link; /* in mu_worker.questions */
    struct mu_worker *w;
    char id[ID_MAX + 1];
};

/* --- answers --- */

static const char *code_of(int result)
{
    switch (result) {
    case MU_E_NOT_FOUND:
        return "NOT_FOUND";
    case MU_E_TIMEOUT:
        return "TIMEOUT";
    case MU_E_TOO_LARGE:
        return "TOO_LARGE";
    case MU_E_SHUTDOWN:
    case MU_E_BUSY:
    case -ENOMEM:
        return "BUSY";
    case MU_E_INVALID:
        return "INVALID";
    default:
        return "UNAVAILABLE";
    }
}

static void refuse(struct mu_worker *w, mu_bytes id, int result, const char *why)
{
    struct mu_buf buf;
    mu_buf_init(&buf, 16 << 10);
    mu_wire_command_result(&buf, id, false, code_of(result),
                           why && why[0] ? why : mu_err_text(result));
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
}

static int add_skills(struct mu_arena *a, const struct mu_git_files *files,
                      struct mu_wire_skill *skills, size_t *ret_n)
{
    size_t n = 0;
    for (size_t i = 0; i < files->n; i++) {
        struct mu_skill_text text;
        int r = mu_skill_read(a, files->files[i].path, files->files[i].text, &text);
        if (r == -ENOMEM) {
            return r;
        }
        if (r == 0) {
            skills[n++] = (struct mu_wire_skill){.name = text.name,
                                                 .description = text.description,
                                                 .path = files->files[i].path,
                                                 .base_prompt = text.prompt};
        }
    }
    *ret_n = n;
    return 0;
}

static int answer(struct mu_question *q, const struct mu_git_files *files)
{
    struct mu_buf buf;
    struct mu_arena a;
    size_t n = 0;
    mu_arena_init(&a, SKILLS_ARENA);
    mu_buf_init(&buf, MU_WIRE_MAX_MESSAGE);
    struct mu_wire_skill *skills = mu_arena_calloc(&a, (files->n + 1) * sizeof *skills);
    int r = skills ? add_skills(&a, files, skills, &n) : -ENOMEM;
    if (r == 0) {
        mu_wire_skills_result(&buf, mu_str(q->id), skills, n, files->more);
        r = buf.failed;
    }
    if (r == 0) {
        mu_uplink_send(q->w, &buf);
    }
    mu_buf_fini(&buf);
    mu_arena_fini(&a);
    return r;
}

static void on_files(void *arg, int result, const struct mu_git_files *files, const char *why)
{
    struct mu_question *q = arg;
    struct mu_worker *w = q->w;
    int r = result < 0 ? result : answer(q, files);
    if (r < 0) {
        mu_log(MU_LOG_DEBUG, "skills.failed", MU_KC("command_id", q->id),
               MU_KC("err_message", why && why[0] ? why : mu_err_text(r)));
        refuse(w, mu_str(q->id), r, result < 0 ? why : NULL);
    }
    mu_list_remove(&q->link);
    w->n_questions--;
    mu_free(q);
    mu_worker_advance(w);
}

/* --- questions --- */

static bool is_asked(struct mu_worker *w, mu_bytes id)
{
    MU_LIST_EACH(it, tmp, &w->questions)
    {
        if (mu_bytes_is(id, MU_CONTAINER(it, struct mu_question, link)->id)) {
            return true;
        }
    }
    return false;
}

static int start(struct mu_question *q, const struct mu_repo_spec *spec, yyjson_val *vars)
{
    struct mu_arena a;
    mu_arena_init(&a, 64 << 10);
    const char *url = mu_repo_url(&a, spec).ptr;
    const char *ref = mu_arena_dup(&a, spec->ref).ptr;
    struct mu_git_read_request req = {.url = url,
                                      .ref = ref,
                                      .roots = roots,
                                      .name = "SKILL.md",
                                      .max_depth = DEPTH_MAX,
                                      .max_file_bytes = FILE_MAX,
                                      .done = on_files,
                                      .arg = q};
    int r = -ENOMEM;
    if (url && ref && mu_worker_credential(&a, vars, url, &req.credential) == 0) {
        r = mu_git_read_start(q->w->git, &req);
    }
    if (req.credential) {
        explicit_bzero((char *)(uintptr_t)req.credential, strlen(req.credential));
    }
    mu_arena_fini(&a);
    return r;
}

void mu_skills_command(struct mu_worker *w, mu_bytes id, yyjson_val *data)
{
    struct mu_repo_spec spec;
    const char *why = "this worker reads no such addresses";
    if (!id.len || id.len > ID_MAX || is_asked(w, id)) {
        return; /* the answer is on its way */
    }
    if (mu_repo_spec_parse(mu_json_get_bytes(data, "repo"), &spec, &why) < 0 || !spec.plain) {
        refuse(w, id, MU_E_INVALID, why);
        return;
    }
    if (w->phase != MU_PHASE_SERVING || w->n_questions >= QUESTIONS_MAX || !mu_worker_git(w)) {
        refuse(w, id, MU_E_BUSY, "this worker reads no repositories just now");
        return;
    }
    struct mu_question *q = mu_calloc(1, sizeof *q);
    if (q) {
        q->w = w;
        memcpy(q->id, id.ptr, id.len);
    }
    int r = q ? start(q, &spec, mu_json_get(data, "env_vars")) : -ENOMEM;
    if (r < 0) {
        mu_free(q);
        refuse(w, id, r, NULL);
        return;
    }
    mu_list_push(&w->questions, &q->link);
    w->n_questions++;
}
