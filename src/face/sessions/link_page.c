/* The page of an approval link: for a phone, without a script, and without anything that its reader
 * does not see. */
#include <stdio.h>

#include "base/clock.h"
#include "base/encode.h"
#include "face/sessions/link_int.h"

static const char style[] =
    ":root{color-scheme:light dark;--fg:#1b1f24;--dim:#57606a;--bg:#f6f7f9;--card:#fff;--line:#"
    "d0d7de;--code:#eff1f3;--yes:#116329;--no:#a40e26;--mark:#9a3412}"
    "@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#9aa4af;--bg:#0d1117;--card:#"
    "161b22;--line:#30363d;--code:#0d1117;--yes:#2a8a45;--no:#c93c4a;--mark:#f0883e}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 "
    "system-ui,sans-serif}main{max-width:40rem;margin:0 auto;padding:1rem}"
    "h1{font-size:1.35rem;margin:.5rem 0 1rem}h2{font-size:.8rem;margin:1rem 0 .25rem;color:var(--"
    "dim);font-weight:600}p{margin:.5rem 0}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem}"
    "pre{margin:0;padding:.75rem;background:var(--code);border:1px solid var(--line);border-radius:"
    ".5rem;font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;"
    "direction:ltr;unicode-bidi:isolate;text-align:left}"
    "pre b{color:var(--mark);font-weight:700}dl{margin:0;display:grid;grid-template-columns:auto "
    "1fr;gap:.25rem .75rem}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere;unicode-bidi:"
    "isolate}.risk{display:inline-block;padding:.05rem .6rem;border-radius:1rem;border:1px solid "
    "currentColor;font-weight:600}.high{color:var(--no)}.low{color:var(--yes)}.med{color:var(--"
    "mark)}label{display:block;margin:1rem 0 .25rem;color:var(--dim)}"
    "textarea{width:100%;min-height:4rem;font:inherit;color:inherit;background:var(--code);border:"
    "1px solid var(--line);border-radius:.5rem;padding:.5rem}"
    ".do{display:flex;gap:.75rem;margin-top:1rem}button{flex:1;min-height:3rem;font:inherit;font-"
    "weight:600;border:0;border-radius:.6rem;color:#fff;background:var(--yes);cursor:pointer}"
    "button.no{background:var(--no)}button:focus-visible,textarea:focus-visible{outline:3px solid "
    "#4493f8;outline-offset:2px}.dim{color:var(--dim);font-size:.9rem}";

/* --- text --- */

/* Characters that show nothing, look like a blank, or move what stands around them. */
static bool hides(uint32_t c)
{
    static const struct {
        uint32_t from, to;
    } ranges[] = {
        {0x00, 0x08},       {0x0b, 0x1f},       {0x7f, 0xa0},     {0xad, 0xad},
        {0x34f, 0x34f},     {0x61c, 0x61c},     {0x115f, 0x1160}, {0x1680, 0x1680},
        {0x17b4, 0x17b5},   {0x180b, 0x180f},   {0x2000, 0x200f}, {0x2028, 0x202f},
        {0x205f, 0x206f},   {0x2800, 0x2800},   {0x3000, 0x3000}, {0x3164, 0x3164},
        {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0}, {0xfff0, 0xfffb},
        {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(ranges); i++) {
        if (c >= ranges[i].from && c <= ranges[i].to) {
            return true;
        }
    }
    return false;
}

/* Of a well-formed character of `n` bytes. */
static uint32_t code_point(const char *p, size_t n)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = (unsigned char)p[0] & masks[n];
    for (size_t i = 1; i < n; i++) {
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    }
    return c;
}

static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void mu_visit_text(struct mu_buf *dst, mu_bytes text)
{
    while (text.len) {
        size_t bad = 1, n = mu_utf8_len(text, &bad);
        uint32_t c = n ? code_point(text.ptr, n) : 0;
        if (n == 0) {
            for (size_t i = 0; i < bad; i++) {
                mu_buf_printf(dst, "<b>\\x%02X</b>", (unsigned)(unsigned char)text.ptr[i]);
            }
        } else if (hides(c)) {
            mu_buf_printf(dst, "<b>\\u{%X}</b>", (unsigned)c);
        } else if (n == 1 && entity(text.ptr[0])) {
            mu_buf_add_str(dst, entity(text.ptr[0]));
        } else {
            mu_buf_add(dst, mu_bytes_head(text, n));
        }
        text = mu_bytes_from(text, n ? n : bad);
    }
}

static void add_time(struct mu_buf *b, int64_t ms)
{
    char text[MU_TIME_LEN + 1];
    mu_time_format(ms, text);
    mu_buf_printf(b, "%.10s %.5s UTC", text, text + 11);
}

/* --- what is asked --- */

static void add_block(struct mu_buf *b, mu_bytes heading, mu_bytes text)
{
    mu_buf_add_str(b, "<h2>");
    mu_visit_text(b, heading);
    /* the first line break behind <pre> is not shown */
    mu_buf_add_str(b, "</h2><pre>\n");
    mu_visit_text(b, text);
    mu_buf_add_str(b, "</pre>");
}

static void add_value(struct mu_buf *b, mu_bytes name, yyjson_val *value)
{
    struct mu_buf text;
    if (yyjson_is_str(value)) {
        add_block(b, name, mu_json_bytes(value));
        return;
    }
    mu_buf_init(&text, 1 << 20);
    mu_json_add(&text, value);
    add_block(b, name, mu_buf_bytes(&text));
    b->failed = b->failed ? b->failed : text.failed;
    mu_buf_fini(&text);
}

/* Every member; a context that is no object, whole. */
static void add_context(struct mu_buf *b, mu_bytes context)
{
    static const struct mu_json_limits limits = {.max_bytes = 1 << 20, .max_depth = 200};
    struct mu_arena a;
    yyjson_val *root = NULL, *key, *value;
    size_t i, n;
    mu_arena_init(&a, 16 << 20);
    int r = context.len ? mu_json_read(&a, context, &limits, &root, NULL) : 0;
    if (r < 0 || (root && !yyjson_is_obj(root))) {
        add_block(b, MU_B("Details"), context);
    } else if (root) {
        yyjson_obj_foreach(root, i, n, key, value)
        {
            add_value(b, mu_json_bytes(key), value);
        }
    }
    mu_arena_fini(&a);
}

static void add_pair(struct mu_buf *b, const char *name, mu_bytes value)
{
    mu_buf_printf(b, "<dt>%s</dt><dd>", name);
    mu_visit_text(b, value);
    mu_buf_add_str(b, "</dd>");
}

static void add_facts(struct mu_buf *b, const struct mu_visit *v)
{
    mu_buf_printf(b, "<dl><dt>Risk</dt><dd><span class=\"risk %s\">%s</span></dd>", v->risk,
                  v->risk);
    add_pair(b, "Session", v->title.len ? v->title : MU_B("(without a title)"));
    mu_buf_printf(b, "<dt>Id</dt><dd>ses_%s</dd>", v->session.text);
    if (v->by_agent) {
        add_pair(b, "Asked by", mu_sess_provider(v->harness));
    } else {
        add_pair(b, "Asked by", MU_B("a program, over the API"));
    }
    mu_buf_add_str(b, "<dt>Asked</dt><dd>");
    add_time(b, v->asked_ms);
    mu_buf_add_str(b, "</dd><dt>Until</dt><dd>");
    add_time(b, v->expires_ms);
    mu_buf_add_str(b, "</dd>");
    add_pair(b, "Link for", v->label);
    mu_buf_add_str(b, "</dl>");
}

static void add_form(struct mu_buf *b, const struct mu_visit *v)
{
    mu_buf_printf(b,
                  "<form method=\"post\"><label for=\"r\">Reason (optional; the agent is told "
                  "it)</label><textarea id=\"r\" name=\"reason\" maxlength=\"%d\"></textarea><div "
                  "class=\"do\">",
                  MU_GATE_TEXT_MAX);
    if (v->decisions & MU_LINK_DENY) {
        mu_buf_add_str(b, "<button class=\"no\" name=\"decision\" value=\"deny\">Deny</button>");
    }
    if (v->decisions & MU_LINK_ALLOW) {
        mu_buf_add_str(b, "<button name=\"decision\" value=\"allow\">Allow once</button>");
    }
    mu_buf_add_str(b,
                   "</div></form><p class=\"dim\">This link decides once. Whoever has it can use "
                   "it: do not pass it on.</p>");
}

static void add_question(struct mu_buf *b, const struct mu_visit *v)
{
    static const struct {
        const char *action, *heading;
    } headings[] = {{"merge", "Merge or push?"},      {"deps_add", "Add dependencies?"},
                    {"secrets", "Read a secret?"},    {"deploy", "Deploy?"},
                    {"shell", "Run this command?"},   {"network", "Reach this host?"},
                    {"tool", "Let it use this tool?"}};
    const char *heading = "Approve this?";
    for (size_t i = 0; i < MU_ARRAY_LEN(headings); i++) {
        heading = strcmp(headings[i].action, v->action) == 0 ? headings[i].heading : heading;
    }
    mu_buf_printf(b, "<h1>%s</h1><div class=\"card\">", heading);
    add_facts(b, v);
    add_block(b, MU_B("What is asked"), v->description);
    add_context(b, v->context);
    add_form(b, v);
    mu_buf_add_str(b, "</div>");
}

/* --- what became of it --- */

static const char *word_of(const struct mu_visit *v)
{
    return v->status == MU_GATE_ALLOWED ? "allowed" : "denied";
}

static void add_end(struct mu_buf *b, const struct mu_visit *v)
{
    bool known = v->status == MU_GATE_ALLOWED || v->status == MU_GATE_DENIED;
    if (v->state == MU_VISIT_USED && known) {
        mu_buf_printf(b, "<p>What it was for is %s.</p>", word_of(v));
    } else if (v->state == MU_VISIT_DECIDED) {
        mu_buf_printf(b, "<p>It was %s elsewhere", word_of(v));
        if (v->resolved_ms) {
            mu_buf_add_str(b, ", ");
            add_time(b, v->resolved_ms);
        }
        mu_buf_add_str(b, ".</p>");
    } else if (v->state == MU_VISIT_EXPIRED) {
        mu_buf_add_str(b, "<p>What nobody allows in time is denied.</p>");
    } else if (v->state == MU_VISIT_BAD && v->why) {
        mu_buf_printf(b, "<p>%s</p>", v->why);
    }
    mu_buf_add_str(b, "<p class=\"dim\">You can close this page.</p>");
}

static const struct {
    int status;
    const char *heading;
} states[] = {
    [MU_VISIT_OPEN] = {200, "An approval is wanted"},
    [MU_VISIT_DONE] = {200, "Done"},
    [MU_VISIT_VOTED] = {200, "Counted: a second person must allow it too"},
    [MU_VISIT_USED] = {410, "This link was used already"},
    [MU_VISIT_DECIDED] = {409, "This is decided already"},
    [MU_VISIT_EXPIRED] = {410, "This link is too old"},
    [MU_VISIT_CANCELLED] = {410, "Nobody waits for this any more"},
    [MU_VISIT_UNKNOWN] = {404, "There is no such link"},
    [MU_VISIT_REFUSED] = {403, "This link is not for that decision"},
    [MU_VISIT_BAD] = {400, "That was not understood"},
    [MU_VISIT_BUSY] = {429, "Too many requests: wait a minute and try again"},
    [MU_VISIT_FAILED] = {503, "This did not work: try again in a moment"},
};

/* Only this style may apply: it is named by its digest. */
static void add_policy(struct mu_buf *dst)
{
    struct mu_digest d = mu_sha256(mu_str(style));
    mu_buf_add_str(dst, "default-src 'none'; style-src 'sha256-");
    mu_base64_add(dst, mu_bytes_of((const char *)d.bytes, sizeof d.bytes));
    mu_buf_add_str(dst, "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
}

static void send(struct mu_visit *v, int status)
{
    char seconds[24];
    struct mu_buf policy;
    struct mu_http_pair pairs[6] = {{"Referrer-Policy", MU_B("no-referrer")},
                                    {"X-Frame-Options", MU_B("DENY")},
                                    {"X-Robots-Tag", MU_B("noindex, nofollow")},
                                    {"Cross-Origin-Opener-Policy", MU_B("same-origin")}};
    mu_buf_init(&policy, 1024);
    add_policy(&policy);
    size_t n = 4;
    pairs[n++] = (struct mu_http_pair){"Content-Security-Policy", mu_buf_bytes(&policy)};
    if (status == 429 || status == 503) {
        snprintf(seconds, sizeof seconds, "%lld", (long long)MU_MAX(v->retry_ms / 1000 + 1, 1));
        pairs[n++] = (struct mu_http_pair){"Retry-After", mu_str(seconds)};
    }
    if (policy.failed) {
        mu_call_fail(v->c, policy.failed);
    } else {
        mu_call_send_as(v->c, status, "text/html; charset=utf-8", pairs, n);
    }
    mu_buf_fini(&policy);
}

void mu_visit_page(struct mu_visit *v)
{
    struct mu_buf *b = mu_call_buf(v->c);
    const char *heading = states[v->state].heading;
    char done[32];
    if (v->state == MU_VISIT_DONE) {
        snprintf(done, sizeof done, "Done: it is %s", word_of(v));
        heading = done;
    }
    mu_buf_printf(b,
                  "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
                  "name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta "
                  "name=\"referrer\" content=\"no-referrer\"><title>%s · "
                  "Muster</title><style>",
                  heading);
    mu_buf_add_str(b, style);
    mu_buf_add_str(b, "</style></head><body><main>");
    if (v->state == MU_VISIT_OPEN) {
        add_question(b, v);
    } else {
        mu_buf_printf(b, "<h1>%s</h1><div class=\"card\">", heading);
        add_end(b, v);
        mu_buf_add_str(b, "</div>");
    }
    mu_buf_add_str(b, "</main></body></html>\n");
    send(v, states[v->state].status);
}
