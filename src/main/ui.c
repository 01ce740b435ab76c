#include "main/ui.h"

#include <sys/ioctl.h>
#include <wchar.h>

#include "base/clock.h"
#include "base/encode.h"
#include "base/env.h"

bool mu_ui_tty(FILE *f)
{
    const char *term = getenv("TERM");
    return isatty(fileno(f)) && !(term && !strcmp(term, "dumb"));
}

bool mu_ui_colour(FILE *f)
{
    const char *no = getenv("NO_COLOR");
    return !(no && no[0]) && mu_ui_tty(f);
}

size_t mu_ui_width(void)
{
    struct winsize w;
    int64_t columns;
    if (!isatty(1)) {
        return 0;
    }
    if (ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_col > 20) {
        return w.ws_col;
    }
    if (mu_bytes_i64(mu_str(getenv("COLUMNS")), &columns) == 0 && columns > 20 && columns < 10000) {
        return (size_t)columns;
    }
    return 80;
}

void mu_ui_clean(struct mu_buf *dst, mu_bytes text, bool lines)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        /* C1 controls are two bytes in UTF-8: C2 80..9F. */
        if (c == 0xc2 && i + 1 < text.len && (unsigned char)text.ptr[i + 1] < 0xa0) {
            i++;
            continue;
        }
        if (lines ? c == '\n' || c == '\t' : false) {
            mu_buf_add_char(dst, (char)c);
        } else if (c == '\n' || c == '\t' || c == '\r') {
            mu_buf_add_str(dst, lines ? "" : " ");
        } else if (c >= ' ' && c != 0x7f) {
            mu_buf_add_char(dst, (char)c);
        }
    }
}

void mu_ui_text(mu_bytes text)
{
    if (!isatty(1)) {
        fwrite(text.ptr, 1, text.len, stdout);
        return;
    }
    struct mu_buf b;
    mu_buf_init(&b, text.len + 16);
    mu_ui_clean(&b, text, true);
    fwrite(b.ptr, 1, b.len, stdout);
    mu_buf_fini(&b);
}

void mu_ui_seconds(int64_t s, char *dst, size_t size)
{
    s = MU_MAX(s, 0);
    if (s < 60) {
        snprintf(dst, size, "%llds", (long long)s);
    } else if (s < 3600) {
        snprintf(dst, size, "%lldm %llds", (long long)(s / 60), (long long)(s % 60));
    } else {
        snprintf(dst, size, "%lldh %lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
    }
}

void mu_ui_ago(mu_bytes time, char *dst, size_t size)
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};
    int64_t ms;
    if (time.len == 0 || mu_time_parse(time, &ms) < 0) {
        snprintf(dst, size, "-");
        return;
    }
    int64_t s = (mu_env_wall_ms(&mu_env_real) - ms) / 1000;
    bool ahead = s < 0;
    s = ahead ? -s : s;
    size_t i = 0;
    while (i < 3 && s < units[i].seconds) {
        i++;
    }
    snprintf(dst, size, "%s%lld%s%s", ahead ? "in " : "", (long long)(s / units[i].seconds),
             units[i].unit, ahead ? "" : " ago");
}

void mu_ui_row(const char *name, mu_bytes value)
{
    struct mu_buf b;
    if (value.len == 0) {
        return;
    }
    mu_buf_init(&b, 1 << 20);
    mu_ui_clean(&b, value, false);
    printf("%-12s %.*s\n", name, MU_ARGS(mu_buf_bytes(&b)));
    mu_buf_fini(&b);
}

void mu_ui_time_row(const char *name, mu_bytes time)
{
    char ago[32], both[80];
    if (time.len) {
        mu_ui_ago(time, ago, sizeof ago);
        snprintf(both, sizeof both, "%.*s (%s)", (int)MU_MIN(time.len, (size_t)30), time.ptr, ago);
        mu_ui_row(name, mu_str(both));
    }
}

void mu_ui_span(mu_bytes from, mu_bytes to, char *dst, size_t size)
{
    int64_t a, b = mu_env_wall_ms(&mu_env_real);
    if (from.len == 0 || mu_time_parse(from, &a) < 0 || (to.len && mu_time_parse(to, &b) < 0)) {
        snprintf(dst, size, "-");
        return;
    }
    mu_ui_seconds((b - a) / 1000, dst, size);
}

const char *mu_ui_state_colour(FILE *f, mu_bytes state)
{
    if (!mu_ui_colour(f)) {
        return "";
    }
    if (mu_bytes_is(state, "SUCCEEDED") || mu_bytes_is(state, "COMPLETED")) {
        return "\033[32m";
    }
    if (mu_bytes_is(state, "FAILED") || mu_bytes_is(state, "TIMED_OUT")) {
        return "\033[31m";
    }
    if (mu_bytes_is(state, "INPROGRESS") || mu_bytes_is(state, "CLAIMED") ||
        mu_bytes_is(state, "RUNNING")) {
        return "\033[36m";
    }
    return mu_bytes_is(state, "CANCELLED") ? "\033[2m" : "\033[33m";
}

const char *mu_ui_reset(FILE *f)
{
    return mu_ui_colour(f) ? "\033[0m" : "";
}

/* --- tables --- */

/* The columns that a text takes, and how many bytes fit into `max` of them. */
static size_t columns_of(mu_bytes text, size_t max, size_t *ret_bytes)
{
    mbstate_t st = {0};
    size_t used = 0, i = 0;
    while (i < text.len) {
        wchar_t wc;
        size_t n = mbrtowc(&wc, text.ptr + i, text.len - i, &st);
        int w = 1;
        if (n == 0 || n > text.len - i) {
            n = 1;
            memset(&st, 0, sizeof st);
        } else {
            w = wcwidth(wc);
        }
        w = w < 0 ? 0 : w;
        if (used + (size_t)w > max) {
            break;
        }
        used += (size_t)w;
        i += n;
    }
    *ret_bytes = i;
    return used;
}

void mu_table_init(struct mu_table *t, const char *const *headings, size_t columns)
{
    mu_buf_init(&t->cells, 16 * 1024 * 1024);
    t->columns = MU_MIN(columns, (size_t)MU_TABLE_COLUMNS);
    t->n = 0;
    t->state_column = -1;
    for (size_t i = 0; i < t->columns; i++) {
        mu_table_cell(t, mu_str(headings[i]));
    }
}

void mu_table_cell(struct mu_table *t, mu_bytes text)
{
    mu_ui_clean(&t->cells, text.len ? mu_utf8_cut(text, 400) : MU_B("-"), false);
    mu_buf_add_char(&t->cells, 0);
    t->n++;
}

static void print_cell(const struct mu_table *t, size_t column, mu_bytes cell, size_t width,
                       bool heading)
{
    bool last = column + 1 == t->columns, state = !heading && (int)column == t->state_column;
    size_t bytes, used = columns_of(cell, last ? width : SIZE_MAX, &bytes);
    bool cut = bytes < cell.len;
    if (cut && width > 1) {
        used = columns_of(cell, width - 1, &bytes);
    }
    printf("%s%.*s%s%s", state ? mu_ui_state_colour(stdout, cell) : "", (int)bytes, cell.ptr,
           cut ? "…" : "", state ? mu_ui_reset(stdout) : "");
    if (last) {
        putchar('\n');
    } else {
        printf("%*s", (int)(width - used) + 2, "");
    }
}

void mu_table_end(struct mu_table *t)
{
    size_t width[MU_TABLE_COLUMNS] = {0}, bytes, total = 0, at = 0, terminal = mu_ui_width();
    if (t->cells.failed) {
        fputs("muster: out of memory\n", stderr);
        t->n = 0;
    }
    for (size_t i = 0; i < t->n; i++) {
        mu_bytes cell = mu_str(t->cells.ptr + at);
        size_t w = columns_of(cell, SIZE_MAX, &bytes);
        width[i % t->columns] = MU_MAX(width[i % t->columns], w);
        at += cell.len + 1;
    }
    for (size_t i = 0; i + 1 < t->columns; i++) {
        total += width[i] + 2;
    }
    width[t->columns - 1] = !terminal ? SIZE_MAX : terminal > total + 10 ? terminal - total : 10;
    at = 0;
    for (size_t i = 0; i < t->n; i++) {
        mu_bytes cell = mu_str(t->cells.ptr + at);
        print_cell(t, i % t->columns, cell, width[i % t->columns], i < t->columns);
        at += cell.len + 1;
    }
    mu_buf_fini(&t->cells);
}
