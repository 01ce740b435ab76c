/* What a call needs besides the prompt: the system text of the run, earlier turns of its
 * conversation, its images. Read on a reader thread (rows and, with them, the stored objects: both
 * may block). */
#include <errno.h>
#include <stdio.h>

#include "app/dispatch/exec.h"
#include "app/files/files.h"
#include "base/encode.h"
#include "proto/json.h"

enum { MAX_TURNS = 20, MAX_HISTORY = 1 << 20, MAX_IMAGES = 5, MAX_IMAGE = 32 << 20 };

static const struct mu_stmt q_turns = {
    "turns", "ttt",
    "SELECT p.prompt_head, p.prompt_rest, x.output FROM sessions s JOIN session_specs p ON "
    "p.session_id = s.id JOIN "
    "session_results x ON x.session_id = s.id WHERE s.org_id || '' = $1 AND s.conversation_id = $2 "
    "AND s.id < $3 AND s.outcome = 1 "
    "ORDER BY s.id DESC LIMIT 20",
    NULL};
static const struct mu_stmt q_first_turn = {
    "first_turn", "tt",
    "SELECT p.prompt_head, p.prompt_rest, x.output FROM sessions s JOIN session_specs p ON "
    "p.session_id = s.id JOIN "
    "session_results x ON x.session_id = s.id WHERE s.id = $2 AND s.org_id || '' = $1 AND "
    "s.outcome = 1",
    NULL};
static const struct mu_stmt q_images = {
    "images", "t",
    "SELECT id, media_type FROM files WHERE session_id = $1 AND kind = 1 ORDER BY id LIMIT 5",
    NULL};

struct reading {
    struct mu_exec *x;
    void (*then)(struct mu_exec *x);
    bool continues;
    int64_t images;
    size_t history;
};

static int take_turn(void *arg, struct mu_row *row)
{
    struct reading *rd = arg;
    struct mu_exec *x = rd->x;
    struct mu_arena *a = &x->claim.arena;
    mu_bytes head = mu_row_bytes(row, 0), rest = mu_row_bytes(row, 1),
             output = mu_row_bytes(row, 2);
    size_t size = head.len + rest.len + output.len;
    if (x->n_turns == MAX_TURNS || rd->history + size > MAX_HISTORY) {
        return 0;
    }
    char *p = mu_arena_alloc(a, head.len + rest.len + 1);
    mu_bytes answer = mu_arena_dup(a, output);
    if (!p || !answer.ptr) {
        return -ENOMEM;
    }
    memcpy(p, head.ptr ? head.ptr : "", head.len);
    memcpy(p + head.len, rest.ptr ? rest.ptr : "", rest.len);
    rd->history += size;
    x->turns[x->n_turns++] = (struct mu_model_turn){mu_bytes_of(p, head.len + rest.len), answer};
    return 0;
}

static int read_turns(struct reading *rd, struct mu_db *db)
{
    struct mu_exec *x = rd->x;
    mu_bytes org = mu_str(x->run->org_id), conversation = x->claim.conversation_id;
    x->turns = mu_arena_calloc(&x->claim.arena, MAX_TURNS * sizeof *x->turns);
    if (!x->turns) {
        return -ENOMEM;
    }
    int r = MU_DB_RUN(db, &q_turns, take_turn, rd, MU_VT(org), MU_VT(conversation),
                      MU_VT(mu_id_bytes(&x->run->id)));
    if (r >= 0) {
        r = MU_DB_RUN(db, &q_first_turn, take_turn, rd, MU_VT(org), MU_VT(conversation));
    }
    for (size_t i = 0; i < x->n_turns / 2; i++) { /* newest first so far */
        struct mu_model_turn t = x->turns[i];
        x->turns[i] = x->turns[x->n_turns - 1 - i];
        x->turns[x->n_turns - 1 - i] = t;
    }
    return r < 0 ? r : 0;
}

static int take_image(void *arg, struct mu_row *row)
{
    struct reading *rd = arg;
    struct mu_exec *x = rd->x;
    if (x->n_images == MAX_IMAGES || !x->run->d->opts.files) {
        return MU_E_NOT_FOUND;
    }
    struct mu_buf raw, text;
    mu_buf_init(&raw, MAX_IMAGE);
    mu_buf_init(&text, 2 * MAX_IMAGE);
    int r = mu_files_get(x->run->d->opts.files, mu_row_bytes(row, 0), &raw);
    if (r == 0) {
        mu_base64_add(&text, mu_buf_bytes(&raw));
        struct mu_model_image *image = &x->images[x->n_images++];
        image->base64 = mu_arena_dup(&x->claim.arena, mu_buf_bytes(&text));
        image->mime_type = mu_arena_dup(&x->claim.arena, mu_row_bytes(row, 1));
        r = text.failed || !image->base64.ptr || !image->mime_type.ptr ? -ENOMEM : 0;
    }
    mu_buf_fini(&raw);
    mu_buf_fini(&text);
    return r;
}

static int read_images(struct reading *rd, struct mu_db *db)
{
    struct mu_exec *x = rd->x;
    x->images = mu_arena_calloc(&x->claim.arena, MAX_IMAGES * sizeof *x->images);
    if (!x->images) {
        return -ENOMEM;
    }
    int r = MU_DB_RUN(db, &q_images, take_image, rd, MU_VT(mu_id_bytes(&x->run->id)));
    return r < 0 ? r : r == rd->images ? 0 : MU_E_NOT_FOUND;
}

static int run_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_exec *x = MU_CONTAINER(read, struct mu_exec, context_read);
    struct reading *rd = x->context;
    int r = rd->continues ? read_turns(rd, db) : 0;
    return r == 0 && rd->images ? read_images(rd, db) : r;
}

static void read_done(struct mu_read *read, int result)
{
    struct mu_exec *x = MU_CONTAINER(read, struct mu_exec, context_read);
    struct reading *rd = x->context;
    x->context_result = result;
    rd->then(x);
}

void mu_exec_context(struct mu_exec *x, void (*then)(struct mu_exec *x))
{
    struct mu_arena *a = &x->claim.arena;
    yyjson_val *spec = NULL;
    struct mu_err err;
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 80};
    struct reading *rd = mu_arena_calloc(a, sizeof *rd);
    x->context_result = rd ? mu_json_read(a, x->claim.spec, &limits, &spec, &err) : -ENOMEM;
    if (x->context_result < 0) {
        then(x);
        return;
    }
    x->context = rd;
    x->system = mu_json_get_bytes(mu_json_get(spec, "agent_config"), "base_prompt");
    *rd = (struct reading){.x = x,
                           .then = then,
                           .continues = mu_json_get_bool(spec, "continues", false) &&
                                        x->claim.conversation_id.ptr,
                           .images = mu_json_get_i64(spec, "images", 0)};
    if (!rd->continues && !rd->images) {
        then(x);
        return;
    }
    x->context_read =
        (struct mu_read){.run = run_read, .done = read_done, .loop = x->run->d->opts.core};
    x->context_result = mu_readers_submit(x->run->d->opts.readers, &x->context_read);
    if (x->context_result < 0) {
        then(x);
    }
}
