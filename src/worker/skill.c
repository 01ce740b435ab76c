#include "worker/skill.h"

#include <errno.h>
#include <yaml.h>

#include "base/encode.h"
#include "base/err.h"

enum { DEPTH_MAX = 32 };

struct front {
    mu_bytes name, description;
};

/* --- what is kept of a text --- */

static bool keeps(char c, bool one_line)
{
    unsigned char u = (unsigned char)c;
    return (u >= 0x20 && u != 0x7f) || (!one_line && (c == '\n' || c == '\t'));
}

static int keep(struct mu_arena *a, mu_bytes text, size_t max, bool one_line, mu_bytes *ret)
{
    char *copy = mu_arena_alloc(a, text.len + 1);
    size_t n = 0;
    if (!copy) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < text.len; i++) {
        bool blank = one_line && (text.ptr[i] == '\n' || text.ptr[i] == '\t');
        if (blank || keeps(text.ptr[i], one_line)) {
            copy[n++] = blank ? ' ' : text.ptr[i];
        }
    }
    *ret = mu_bytes_trim(mu_utf8_cut(mu_bytes_trim(mu_bytes_of(copy, n)), max));
    ret->ptr = ret->ptr ? ret->ptr : "";
    return 0;
}

/* --- where the front matter is --- */

static mu_bytes line_of(mu_bytes *rest)
{
    mu_bytes line = mu_bytes_split(rest, '\n');
    if (line.len && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    return line;
}

/* Without an end there is none: then all of it is text. */
static mu_bytes front_of(mu_bytes *text)
{
    mu_bytes rest = *text;
    if (!mu_bytes_is(line_of(&rest), "---") || !rest.ptr) {
        return MU_B("");
    }
    const char *begin = rest.ptr;
    while (rest.ptr) {
        const char *at = rest.ptr;
        if (mu_bytes_is(line_of(&rest), "---")) {
            *text = rest.ptr ? rest : MU_B("");
            return mu_bytes_of(begin, (size_t)(at - begin));
        }
    }
    return MU_B("");
}

/* --- as YAML --- */

/* Events, not a document: aliases are never followed, and what is nested is passed over. */
struct reader {
    yaml_parser_t parser;
    struct mu_arena *arena;
    struct front *out;
    unsigned depth; /* open mappings and sequences */
    bool value;     /* in the outermost mapping: the next node is the value of … */
    mu_bytes *want; /* … this one, or of nothing that we want */
    bool over;
};

static int on_scalar(struct reader *r, const yaml_event_t *e)
{
    if (r->depth != 1) {
        return r->depth == 0 ? MU_E_INVALID : 0;
    }
    mu_bytes text = mu_bytes_of((const char *)e->data.scalar.value, (size_t)e->data.scalar.length);
    if (r->value && r->want) {
        mu_bytes copy = mu_arena_dup(r->arena, text);
        if (!copy.ptr) {
            return -ENOMEM;
        }
        *r->want = copy;
    } else if (!r->value) {
        r->want = mu_bytes_is(text, "name")          ? &r->out->name
                  : mu_bytes_is(text, "description") ? &r->out->description
                                                     : NULL;
    }
    r->value = !r->value;
    return 0;
}

static int on_event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(r, e);
    case YAML_ALIAS_EVENT:
        r->value = r->depth == 1 ? !r->value : r->value;
        return r->depth == 0 ? MU_E_INVALID : 0;
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        if (r->depth == 0 && e->type == YAML_SEQUENCE_START_EVENT) {
            return MU_E_INVALID;
        }
        return ++r->depth > DEPTH_MAX ? MU_E_INVALID : 0;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        if (--r->depth == 1) {
            r->value = !r->value; /* a key that is no scalar is none of ours either */
            r->want = NULL;
        }
        return 0;
    case YAML_DOCUMENT_END_EVENT:
    case YAML_STREAM_END_EVENT:
        r->over = true;
        return 0;
    default:
        return 0;
    }
}

static int read_yaml(struct mu_arena *a, mu_bytes front, struct front *ret)
{
    struct front out = {MU_B_NONE, MU_B_NONE};
    struct reader r = {.arena = a, .out = &out};
    int e = 0;
    if (front.len > MU_SKILL_FRONT) {
        return MU_E_INVALID;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        return -ENOMEM;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)front.ptr, front.len);
    while (e == 0 && !r.over) {
        yaml_event_t event;
        if (!yaml_parser_parse(&r.parser, &event)) {
            e = r.parser.error == YAML_MEMORY_ERROR ? -ENOMEM : MU_E_INVALID;
            break;
        }
        e = on_event(&r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&r.parser);
    if (e == 0) {
        *ret = out;
    }
    return e;
}

/* --- as people write it: "description: Use this: often" --- */

static mu_bytes unquoted(mu_bytes v)
{
    v = mu_bytes_trim(v);
    bool quoted =
        v.len >= 2 && (v.ptr[0] == '"' || v.ptr[0] == '\'') && v.ptr[v.len - 1] == v.ptr[0];
    return quoted ? mu_bytes_of(v.ptr + 1, v.len - 2) : v;
}

static struct front read_lines(mu_bytes front)
{
    struct front out = {MU_B_NONE, MU_B_NONE};
    while (front.ptr) {
        mu_bytes line = line_of(&front);
        if (mu_bytes_starts(line, MU_B("name:")) && !out.name.ptr) {
            out.name = unquoted(mu_bytes_from(line, 5));
        } else if (mu_bytes_starts(line, MU_B("description:")) && !out.description.ptr) {
            out.description = unquoted(mu_bytes_from(line, 12));
        }
    }
    return out;
}

/* --- all of it --- */

static mu_bytes folder_of(mu_bytes path)
{
    size_t end = path.len;
    while (end && path.ptr[end - 1] != '/') {
        end--;
    }
    size_t from = end ? end - 1 : 0;
    while (from && path.ptr[from - 1] != '/') {
        from--;
    }
    return end ? mu_bytes_of(path.ptr + from, end - 1 - from) : MU_B("");
}

int mu_skill_read(struct mu_arena *a, mu_bytes path, mu_bytes text, struct mu_skill_text *ret)
{
    struct mu_skill_text out;
    struct front front = {MU_B_NONE, MU_B_NONE};
    if (!mu_utf8_valid(text) || !mu_utf8_valid(path)) {
        return MU_E_INVALID;
    }
    if (mu_bytes_starts(text, MU_B("\xef\xbb\xbf"))) {
        text = mu_bytes_from(text, 3);
    }
    mu_bytes matter = front_of(&text);
    int r = matter.len ? read_yaml(a, matter, &front) : 0;
    if (r == MU_E_INVALID) {
        front = read_lines(matter);
        r = 0;
    }
    r = r < 0 ? r : keep(a, front.name, MU_SKILL_NAME, true, &out.name);
    if (r == 0 && !out.name.len) {
        r = keep(a, folder_of(path), MU_SKILL_NAME, true, &out.name);
    }
    r = r < 0 ? r : keep(a, front.description, MU_SKILL_DESCRIPTION, false, &out.description);
    r = r < 0 ? r : keep(a, text, MU_SKILL_PROMPT, false, &out.prompt);
    if (r == 0 && !out.name.len) {
        r = MU_E_INVALID;
    }
    if (r == 0) {
        *ret = out;
    }
    return r;
}
