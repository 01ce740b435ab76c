#include "worker/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <yaml.h>

enum { MAX_LIST = 1024 };

enum kind { TEXT, NUMBER, FLAG, LIST, VARS, MAP };

struct key {
    const char *name;
    enum kind kind;
    size_t offset;
    const struct key *inner; /* of MAP */
};

#define AT(field) offsetof(struct mu_worker_yaml, field)
static const struct key docker[] = {
    {"volumes", LIST, AT(volumes), NULL},           {"environment", VARS, AT(environment), NULL},
    {"host", TEXT, AT(docker_host), NULL},          {"pull", TEXT, AT(pull), NULL},
    {"task_network", TEXT, AT(task_network), NULL}, {NULL, TEXT, 0, NULL}};
static const struct key direct[] = {{"workspace_root", TEXT, AT(workspace_root), NULL},
                                    {"target_dir", TEXT, AT(target_dir), NULL},
                                    {"oz_path", TEXT, AT(oz_path), NULL},
                                    {"setup_command", TEXT, AT(setup_command), NULL},
                                    {"teardown_command", TEXT, AT(teardown_command), NULL},
                                    {"environment", VARS, AT(environment), NULL},
                                    {NULL, TEXT, 0, NULL}};
static const struct key command[] = {{"dispatch_command", TEXT, AT(dispatch_command), NULL},
                                     {"cancel_command", TEXT, AT(cancel_command), NULL},
                                     {"dispatch_timeout", TEXT, AT(dispatch_timeout), NULL},
                                     {"environment", VARS, AT(environment), NULL},
                                     {NULL, TEXT, 0, NULL}};
static const struct key namespace_[] = {{"environment", VARS, AT(environment), NULL},
                                        {NULL, TEXT, 0, NULL}};
static const struct key backend[] = {{"docker", MAP, 0, docker},
                                     {"direct", MAP, 0, direct},
                                     {"command", MAP, 0, command},
                                     {"namespace", MAP, 0, namespace_},
                                     {NULL, TEXT, 0, NULL}};
static const struct key top[] = {{"worker_id", TEXT, AT(worker_id), NULL},
                                 {"cleanup", FLAG, AT(cleanup), NULL},
                                 {"max_concurrent_tasks", NUMBER, AT(max_concurrent_tasks), NULL},
                                 {"idle_on_complete", TEXT, AT(idle_on_complete), NULL},
                                 {"backend", MAP, 0, backend},
                                 {"web_socket_url", TEXT, AT(web_socket_url), NULL},
                                 {"server_root_url", TEXT, AT(server_root_url), NULL},
                                 {"state_dir", TEXT, AT(state_dir), NULL},
                                 {"metrics_listen", TEXT, AT(metrics_listen), NULL},
                                 {"task_timeout", TEXT, AT(task_timeout), NULL},
                                 {"drain_timeout", TEXT, AT(drain_timeout), NULL},
                                 {"output_limit", TEXT, AT(output_limit), NULL},
                                 {"sandbox", TEXT, AT(sandbox), NULL},
                                 {"labels", LIST, AT(labels), NULL},
                                 {NULL, TEXT, 0, NULL}};

struct reader {
    yaml_document_t doc;
    struct mu_arena *arena;
    struct mu_worker_yaml *out;
    struct mu_err *err;
};

static int refuse(struct reader *r, const yaml_node_t *n, const char *name, const char *why)
{
    return mu_err_set(r->err, MU_E_INVALID, "line %zu, %s: %s", n->start_mark.line + 1, name, why);
}

/* A scalar as text; ptr NULL for anything else and for null. */
static mu_bytes scalar(const yaml_node_t *n)
{
    if (!n || n->type != YAML_SCALAR_NODE) {
        return MU_B_NONE;
    }
    mu_bytes b =
        mu_bytes_of((const char *)n->data.scalar.value ? (const char *)n->data.scalar.value : "",
                    n->data.scalar.length);
    bool plain = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    bool none = plain && (b.len == 0 || mu_bytes_is(b, "~") || mu_bytes_is(b, "null"));
    return none ? MU_B_NONE : b;
}

static bool is_null(const yaml_node_t *n)
{
    return n && n->type == YAML_SCALAR_NODE && !scalar(n).ptr;
}

static int text(struct reader *r, const yaml_node_t *n, const char *name, const char **ret)
{
    mu_bytes b = scalar(n);
    if (!b.ptr || memchr(b.ptr, 0, b.len)) {
        return refuse(r, n, name, "expected text");
    }
    *ret = mu_arena_dup(r->arena, b).ptr;
    return *ret ? 0 : -ENOMEM;
}

static int flag(struct reader *r, const yaml_node_t *n, const char *name, int64_t *ret)
{
    static const char *const words[][2] = {{"true", "false"}, {"yes", "no"}, {"on", "off"}};
    mu_bytes b = scalar(n);
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        for (int k = 0; k < 2; k++) {
            if (b.ptr && mu_bytes_eq_nocase(b, mu_str(words[i][k]))) {
                *ret = k == 0;
                return 0;
            }
        }
    }
    return refuse(r, n, name, "expected true or false");
}

static bool good_name(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] <= ' ' || name.ptr[i] == '=') {
            return false;
        }
    }
    return name.len > 0;
}

/* {name, value?}: "name=value", or "name" for the host's. */
static int variable(struct reader *r, const yaml_node_t *n, const char *where, const char **ret)
{
    mu_bytes name = MU_B_NONE, value = MU_B_NONE;
    if (n->type != YAML_MAPPING_NODE) {
        return refuse(r, n, where, "expected entries with name and value");
    }
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = yaml_document_get_node(&r->doc, p->key);
        const yaml_node_t *v = yaml_document_get_node(&r->doc, p->value);
        bool is_name = mu_bytes_is(scalar(k), "name");
        if (!is_name && !mu_bytes_is(scalar(k), "value")) {
            return refuse(r, n, where, "an entry has only name and value");
        }
        if (v->type != YAML_SCALAR_NODE) {
            return refuse(r, v, where, "name and value are text");
        }
        *(is_name ? &name : &value) = scalar(v);
    }
    if (!good_name(name) || (value.ptr && memchr(value.ptr, 0, value.len))) {
        return refuse(r, n, where, "a name is missing, empty or has blanks");
    }
    *ret = value.ptr ? mu_arena_printf(r->arena, "%.*s=%.*s", MU_ARGS(name), MU_ARGS(value)).ptr
                     : mu_arena_dup(r->arena, name).ptr;
    return *ret ? 0 : -ENOMEM;
}

static int list(struct reader *r, const yaml_node_t *n, const struct key *k,
                const char *const **ret)
{
    if (n->type != YAML_SEQUENCE_NODE) {
        return refuse(r, n, k->name, "expected a list");
    }
    yaml_node_item_t *first = n->data.sequence.items.start, *top_ = n->data.sequence.items.top;
    size_t count = (size_t)(top_ - first);
    if (count > MAX_LIST) {
        return refuse(r, n, k->name, "too many entries");
    }
    const char **items = mu_arena_calloc(r->arena, (count + 1) * sizeof *items);
    if (!items) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = yaml_document_get_node(&r->doc, first[i]);
        int e = k->kind == VARS ? variable(r, item, k->name, &items[i])
                                : text(r, item, k->name, &items[i]);
        if (e < 0) {
            return e;
        }
    }
    *ret = items;
    return 0;
}

static int mapping(struct reader *r, const yaml_node_t *n, const char *name,
                   const struct key *keys);

static int value_of(struct reader *r, const yaml_node_t *n, const struct key *k)
{
    void *at = (char *)r->out + k->offset;
    int64_t *number = at;
    if (is_null(n) && k->kind != MAP) {
        return 0; /* as if it were not there */
    }
    switch (k->kind) {
    case TEXT:
        return text(r, n, k->name, at);
    case NUMBER:
        return mu_bytes_i64(scalar(n), number) < 0 || *number < 0
                   ? refuse(r, n, k->name, "expected a whole number of at least 0")
                   : 0;
    case FLAG:
        return flag(r, n, k->name, number);
    case LIST:
    case VARS:
        return list(r, n, k, at);
    case MAP:
        break;
    }
    return mapping(r, n, k->name, k->inner);
}

static int one_backend(struct reader *r, const yaml_node_t *n, const char *name)
{
    if (r->out->backend) {
        return refuse(r, n, "backend", "more than one block: keep one");
    }
    r->out->backend = name;
    return 0;
}

static int pair(struct reader *r, const yaml_node_t *key, const yaml_node_t *value,
                const char *name, const struct key *keys, bool *seen)
{
    char why[160];
    mu_bytes word = scalar(key);
    if (keys == backend && mu_bytes_is(word, "kubernetes")) {
        return refuse(r, key, name, "kubernetes is not a back end of this worker");
    }
    for (size_t i = 0; keys[i].name; i++) {
        if (!word.ptr || !mu_bytes_is(word, keys[i].name)) {
            continue;
        }
        if (seen[i]) {
            return refuse(r, key, keys[i].name, "is there twice");
        }
        seen[i] = true;
        int e = keys == backend ? one_backend(r, key, keys[i].name) : 0;
        return e < 0 ? e : value_of(r, value, &keys[i]);
    }
    snprintf(why, sizeof why, "unknown key \"%.*s\"", (int)MU_MIN(word.len, (size_t)60),
             word.ptr ? word.ptr : "");
    return refuse(r, key, name, why);
}

static int mapping(struct reader *r, const yaml_node_t *n, const char *name, const struct key *keys)
{
    bool seen[MU_ARRAY_LEN(top)] = {false};
    if (is_null(n)) {
        return 0;
    }
    if (n->type != YAML_MAPPING_NODE) {
        return refuse(r, n, name, "expected keys and values");
    }
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        int e = pair(r, yaml_document_get_node(&r->doc, p->key),
                     yaml_document_get_node(&r->doc, p->value), name, keys, seen);
        if (e < 0) {
            return e;
        }
    }
    return 0;
}

int mu_worker_yaml_read(struct mu_arena *a, mu_bytes input, struct mu_worker_yaml *ret,
                        struct mu_err *err)
{
    struct mu_worker_yaml out = {.cleanup = -1, .max_concurrent_tasks = -1};
    struct reader r = {.arena = a, .out = &out, .err = err};
    yaml_parser_t parser;
    if (input.len > MU_WORKER_YAML_MAX) {
        return mu_err_set(err, MU_E_INVALID, "larger than %d bytes", MU_WORKER_YAML_MAX);
    }
    if (!yaml_parser_initialize(&parser)) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)(input.ptr ? input.ptr : ""),
                                 input.len);
    if (!yaml_parser_load(&parser, &r.doc)) {
        int e = parser.error == YAML_MEMORY_ERROR
                    ? mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM))
                    : mu_err_set(err, MU_E_INVALID, "line %zu: %s", parser.problem_mark.line + 1,
                                 parser.problem ? parser.problem : "not YAML");
        yaml_parser_delete(&parser);
        return e;
    }
    yaml_node_t *root = yaml_document_get_root_node(&r.doc);
    int e = root ? mapping(&r, root, "the file", top) : 0;
    if (e == -ENOMEM) {
        mu_err_set(err, e, "%s", mu_err_text(e));
    }
    yaml_document_delete(&r.doc);
    yaml_parser_delete(&parser);
    if (e == 0) {
        *ret = out;
    }
    return e;
}
