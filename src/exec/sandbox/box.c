#include <errno.h>
#include <stddef.h>

#include "base/err.h"
#include "exec/sandbox/box_int.h"

/* --- single values --- */

struct text_field {
    const char *name;
    size_t offset;
};
struct number_field {
    const char *name;
    size_t offset;
};
static const struct text_field texts[] = {
    {"id", offsetof(struct mu_box, id)},
    {"worker", offsetof(struct mu_box, worker_id)},
    {"base", offsetof(struct mu_box, base)},
    {"bundle", offsetof(struct mu_box, bundle)},
};
static const struct number_field numbers[] = {
    {"epoch", offsetof(struct mu_box, epoch)},
    {"rung", offsetof(struct mu_box, rung)},
    {"range", offsetof(struct mu_box, range)},
    {"network", offsetof(struct mu_box, network)},
    {"nested", offsetof(struct mu_box, nested)},
    {"fake_root", offsetof(struct mu_box, fake_root)},
    {"memory", offsetof(struct mu_box, memory_bytes)},
    {"pids", offsetof(struct mu_box, pids)},
    {"cpu", offsetof(struct mu_box, cpu_milli)},
    {"disk", offsetof(struct mu_box, disk_bytes)},
    {"shm", offsetof(struct mu_box, shm_bytes)},
    {"log", offsetof(struct mu_box, log_bytes)},
    {"timeout", offsetof(struct mu_box, timeout_ms)},
    {"grace", offsetof(struct mu_box, grace_ms)},
    {"without", offsetof(struct mu_box, without)},
    {"cg.rung", offsetof(struct mu_box, cgroup.rung)},
    {"cg.v2.memory", offsetof(struct mu_box, cgroup.v2_memory)},
    {"cg.v2.cpu", offsetof(struct mu_box, cgroup.v2_cpu)},
    {"cg.v2.pids", offsetof(struct mu_box, cgroup.v2_pids)},
    {"cg.v2.io", offsetof(struct mu_box, cgroup.v2_io)},
};
/* Arrays of MU_CGROUP_PATH characters. */
static const struct text_field places[] = {
    {"cg.unified", offsetof(struct mu_box, cgroup.unified)},
    {"cg.memory", offsetof(struct mu_box, cgroup.memory)},
    {"cg.pids", offsetof(struct mu_box, cgroup.pids)},
    {"cg.cpu", offsetof(struct mu_box, cgroup.cpu)},
    {"cg.cpuacct", offsetof(struct mu_box, cgroup.cpuacct)},
    {"cg.freezer", offsetof(struct mu_box, cgroup.freezer)},
};

static void *field(const void *box, size_t offset)
{
    return (char *)(uintptr_t)box + offset;
}

/* --- writing --- */

static void put(struct mu_buf *b, const char *name, const char *value)
{
    mu_buf_add_str(b, name);
    mu_buf_add_char(b, '=');
    mu_buf_add_str(b, value ? value : "");
    mu_buf_add_char(b, 0);
}

static void put_number(struct mu_buf *b, const char *name, int64_t value)
{
    mu_buf_add_str(b, name);
    mu_buf_add_char(b, '=');
    mu_buf_add_i64(b, value);
    mu_buf_add_char(b, 0);
}

static void put_list(struct mu_buf *b, const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put(b, name, list[i]);
    }
}

void mu_box_write(const struct mu_box *box, struct mu_buf *b)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        put(b, texts[i].name, *(const char **)field(box, texts[i].offset));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        put_number(b, numbers[i].name, *(int64_t *)field(box, numbers[i].offset));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(places); i++) {
        put(b, places[i].name, field(box, places[i].offset));
    }
    put_list(b, "arg", box->argv, box->n_argv);
    put_list(b, "env", box->env, box->n_env);
    put_list(b, "etc", box->etc, box->n_etc);
    for (size_t i = 0; i < box->n_mounts; i++) {
        put(b, "mount.source", box->mounts[i].source);
        put(b, "mount.target", box->mounts[i].target);
        put_number(b, "mount.writable", box->mounts[i].writable);
    }
    for (size_t i = 0; i < box->n_checkouts; i++) {
        put(b, "checkout.tree", box->checkouts[i].tree);
        put(b, "checkout.subdir", box->checkouts[i].subdir);
        put(b, "checkout.objects", box->checkouts[i].objects);
    }
    for (size_t i = 0; i < box->n_harnesses; i++) {
        put(b, "harness.name", box->harnesses[i].name);
        put(b, "harness.path", box->harnesses[i].path);
    }
    for (size_t i = 0; i < box->n_ports; i++) {
        put_number(b, "port", box->ports[i]);
    }
}

void mu_box_write_place(const struct mu_box *box, struct mu_buf *b)
{
    put_number(b, "range", box->range);
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        if (strncmp(numbers[i].name, "cg.", 3) == 0) {
            put_number(b, numbers[i].name, *(int64_t *)field(box, numbers[i].offset));
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(places); i++) {
        put(b, places[i].name, field(box, places[i].offset));
    }
}

/* --- reading --- */

struct reader {
    struct mu_arena *arena;
    struct mu_box *box;
    size_t cap[7];
};
enum list { ARGV, ENV, ETC, MOUNTS, CHECKOUTS, HARNESSES, PORTS };

/* Room for one more element (and one for a NULL) at the end of a list of elements of `size`. */
static void *grow(struct reader *r, enum list which, void *list, size_t n, size_t size)
{
    if (n >= MU_BOX_LIST_MAX) {
        return NULL;
    }
    if (list && n + 1 < r->cap[which]) {
        return list;
    }
    size_t cap = list ? r->cap[which] * 2 : 16;
    char *p = mu_arena_calloc(r->arena, cap * size);
    if (p && n) {
        memcpy(p, list, n * size);
    }
    r->cap[which] = cap;
    return p;
}

static int add_text(struct reader *r, enum list which, const char ***list, size_t *n, mu_bytes v)
{
    const char **p = grow(r, which, (void *)*list, *n, sizeof **list);
    if (!p) {
        return -ENOMEM;
    }
    *list = p;
    p[(*n)++] = v.ptr;
    return 0;
}

#define GROW(r, which, list, n)                                                                    \
    __extension__({                                                                                \
        void *grown_ = grow(r, which, list, n, sizeof *(list));                                    \
        if (grown_) {                                                                              \
            (list) = grown_;                                                                       \
            (n)++;                                                                                 \
        }                                                                                          \
        grown_ != NULL;                                                                            \
    })

/* A list of records: its first member begins a new element. */
static int add_element(struct reader *r, mu_bytes name, mu_bytes v)
{
    struct mu_box *b = r->box;
    int64_t number;
    if (mu_bytes_is(name, "mount.source")) {
        if (!GROW(r, MOUNTS, b->mounts, b->n_mounts)) {
            return -ENOMEM;
        }
        b->mounts[b->n_mounts - 1] = (struct mu_box_mount){v.ptr, "", 0};
    } else if (mu_bytes_is(name, "mount.target") && b->n_mounts) {
        b->mounts[b->n_mounts - 1].target = v.ptr;
    } else if (mu_bytes_is(name, "mount.writable") && b->n_mounts) {
        return mu_bytes_i64(v, &b->mounts[b->n_mounts - 1].writable);
    } else if (mu_bytes_is(name, "checkout.tree")) {
        if (!GROW(r, CHECKOUTS, b->checkouts, b->n_checkouts)) {
            return -ENOMEM;
        }
        b->checkouts[b->n_checkouts - 1] = (struct mu_box_checkout){v.ptr, "", ""};
    } else if (mu_bytes_is(name, "checkout.subdir") && b->n_checkouts) {
        b->checkouts[b->n_checkouts - 1].subdir = v.ptr;
    } else if (mu_bytes_is(name, "checkout.objects") && b->n_checkouts) {
        b->checkouts[b->n_checkouts - 1].objects = v.ptr;
    } else if (mu_bytes_is(name, "harness.name")) {
        if (!GROW(r, HARNESSES, b->harnesses, b->n_harnesses)) {
            return -ENOMEM;
        }
        b->harnesses[b->n_harnesses - 1] = (struct mu_box_harness){v.ptr, ""};
    } else if (mu_bytes_is(name, "harness.path") && b->n_harnesses) {
        b->harnesses[b->n_harnesses - 1].path = v.ptr;
    } else if (mu_bytes_is(name, "port")) {
        if (mu_bytes_i64(v, &number) < 0 || number < 1 || number > 65535) {
            return MU_E_INVALID;
        }
        if (!GROW(r, PORTS, b->ports, b->n_ports)) {
            return -ENOMEM;
        }
        b->ports[b->n_ports - 1] = number;
    } else {
        return MU_E_INVALID;
    }
    return 0;
}

static int take_record(struct reader *r, mu_bytes name, mu_bytes v)
{
    struct mu_box *b = r->box;
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        if (mu_bytes_is(name, texts[i].name)) {
            *(const char **)field(b, texts[i].offset) = v.ptr;
            return 0;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        if (mu_bytes_is(name, numbers[i].name)) {
            return mu_bytes_i64(v, field(b, numbers[i].offset));
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(places); i++) {
        if (mu_bytes_is(name, places[i].name)) {
            if (v.len >= MU_CGROUP_PATH) {
                return MU_E_INVALID;
            }
            memcpy(field(b, places[i].offset), v.ptr, v.len + 1);
            return 0;
        }
    }
    if (mu_bytes_is(name, "arg")) {
        return add_text(r, ARGV, &b->argv, &b->n_argv, v);
    }
    if (mu_bytes_is(name, "env")) {
        return add_text(r, ENV, &b->env, &b->n_env, v);
    }
    if (mu_bytes_is(name, "etc")) {
        return add_text(r, ETC, &b->etc, &b->n_etc, v);
    }
    return add_element(r, name, v);
}

bool mu_box_id_valid(const char *id)
{
    size_t n = id ? strlen(id) : 0;
    if (n == 0 || n > MU_BOX_ID_MAX) {
        return false;
    }
    return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

static int validate(const struct mu_box *b, struct mu_err *err)
{
    if (!mu_box_id_valid(b->id)) {
        return mu_err_set(err, MU_E_INVALID, "spec: no valid id");
    }
    if (!b->bundle || !b->base || b->n_argv == 0) {
        return mu_err_set(err, MU_E_INVALID, "spec: no program");
    }
    if (b->range < 0 || b->range > UINT32_MAX - MU_BOX_RANGE || b->range % MU_BOX_RANGE) {
        return mu_err_set(err, MU_E_INVALID, "spec: no valid id range");
    }
    return 0;
}

int mu_box_read(mu_bytes text, struct mu_arena *arena, struct mu_box *ret, struct mu_err *err)
{
    static const char *none[] = {NULL};
    *ret = (struct mu_box){.argv = none, .env = none, .etc = none};
    struct reader r = {.arena = arena, .box = ret};
    /* The lists begin empty: grow() must not write into `none`. */
    ret->argv = ret->env = ret->etc = NULL;
    mu_bytes rest = mu_arena_dup(arena, text);
    if (!rest.ptr) {
        return -ENOMEM;
    }
    while (rest.len) {
        mu_bytes record = mu_bytes_split(&rest, 0);
        if (!rest.ptr) {
            return mu_err_set(err, MU_E_INVALID, "spec: cut");
        }
        mu_bytes value = record;
        mu_bytes name = mu_bytes_split(&value, '=');
        int result = value.ptr ? take_record(&r, name, value) : MU_E_INVALID;
        if (result < 0) {
            return mu_err_set(err, result, "spec: record %.*s", MU_ARGS(mu_bytes_head(name, 64)));
        }
    }
    ret->argv = ret->argv ? ret->argv : none;
    ret->env = ret->env ? ret->env : none;
    ret->etc = ret->etc ? ret->etc : none;
    return validate(ret, err);
}
