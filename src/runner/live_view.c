/* Terminal 0 of an agent that speaks ACP: a rendering of what it says and does. Nothing of the
 * agent's own text can steer the terminal. */
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum { TEXT_MAX = 512 << 10, RESULT_LINES = 20, RESULT_BYTES = 2000 };
#define RESET "\x1b[0m"
#define BOLD  "\x1b[1m"
#define DIM   "\x1b[2m"
#define CYAN  "\x1b[36m"

static void show(struct mu_live *v, const struct mu_buf *b)
{
    mu_term_put(v, 0, mu_buf_bytes(b), true);
}

/* Lines end with CR LF; other control characters (C0, DEL, and C1 in UTF-8) are left out. */
static void add_safe(struct mu_buf *dst, mu_bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool c1 = c == 0xc2 && i + 1 < text.len && (unsigned char)text.ptr[i + 1] < 0xa0;
        if (c1) {
            i++;
        } else if (c == '\n') {
            mu_buf_add_str(dst, "\r\n");
        } else if (c == '\t' || (c >= 0x20 && c != 0x7f)) {
            mu_buf_add_char(dst, (char)c);
        }
    }
}

void mu_view_prompt(struct mu_live *v, mu_bytes text)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, TEXT_MAX * 2);
    mu_buf_add_str(&b, "\r\n" BOLD "> ");
    add_safe(&b, mu_utf8_cut(text, TEXT_MAX / 2));
    mu_buf_add_str(&b, RESET "\r\n");
    show(v, &b);
}

void mu_view_words(struct mu_live *v, bool thought, mu_bytes text)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, SIZE_MAX / 2);
    mu_buf_add_str(&b, thought ? DIM : "");
    add_safe(&b, text);
    mu_buf_add_str(&b, thought ? RESET : "");
    show(v, &b);
}

static void add_result(struct mu_live *v, struct mu_buf *b, const struct mu_acp_tool *t)
{
    struct mu_buf clean MU_CLEANUP(mu_buf_fini); /* what is cut shows no half of a secret */
    mu_buf_init(&clean, TEXT_MAX);
    (void)mu_redact_text(v->r->redact, mu_buf_bytes(&t->result), &clean);
    mu_bytes rest = mu_utf8_cut(mu_buf_bytes(&clean), RESULT_BYTES);
    bool cut = rest.len < clean.len;
    int lines = 0;
    while (rest.len && lines < RESULT_LINES) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        mu_buf_add_str(b, "    " DIM);
        add_safe(b, line);
        mu_buf_add_str(b, RESET "\r\n");
        lines++;
    }
    if (cut || rest.len) {
        mu_buf_add_str(b, "    " DIM "..." RESET "\r\n");
    }
}

void mu_view_tool(struct mu_live *v, const struct mu_acp_tool *t)
{
    static const char *const words[] = {"waits", "runs", "done", "failed"};
    char line[sizeof v->tool_line];
    snprintf(line, sizeof line, "%.64s %d %s", t->id, (int)t->status, t->title);
    if (strcmp(line, v->tool_line) == 0) {
        return; /* agents repeat themselves */
    }
    memcpy(v->tool_line, line, sizeof line);
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, TEXT_MAX);
    mu_buf_add_str(&b, "\r\n" CYAN "* ");
    char title[sizeof t->title];
    memcpy(title, t->title, sizeof title);
    mu_secrets_hide(v->r->redact, title, sizeof title);
    add_safe(&b, mu_str(title));
    mu_buf_printf(&b, RESET DIM " [%s] %s" RESET "\r\n", t->kind, words[t->status]);
    if (t->status == MU_ACP_COMPLETED || t->status == MU_ACP_FAILED) {
        add_result(v, &b, t);
    }
    show(v, &b);
}

void mu_view_note(struct mu_live *v, const char *colour, const char *fmt, ...)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mu_buf_init(&b, TEXT_MAX);
    mu_buf_printf(&b, "\r\n%s", colour);
    add_safe(&b, mu_str(text));
    mu_buf_add_str(&b, RESET "\r\n");
    show(v, &b);
}
