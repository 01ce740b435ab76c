#include "main/screen.h"

#include <stdio.h>

enum { TEXT, ESCAPE, SEQUENCE, PRIVATE, STRING, STRING_ESCAPE };

/* Private modes, and how terminals usually are. */
static const struct {
    int number;
    bool usual;
} modes[] = {
    {1, false},    {7, true},     {25, true},    {47, false},   {1000, false},
    {1002, false}, {1003, false}, {1004, false}, {1005, false}, {1006, false},
    {1015, false}, {1047, false}, {1049, false}, {2004, false},
};
_Static_assert(MU_ARRAY_LEN(modes) <= MU_SCREEN_MODES, "room for each");

static void set_mode(struct mu_screen *s, int64_t number, bool on)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(modes); i++) {
        if (modes[i].number == number) {
            s->on[i] = on != modes[i].usual;
        }
    }
}

/* "1049;25" and h or l */
static void set_modes(struct mu_screen *s, bool on)
{
    mu_bytes left = mu_bytes_of(s->digits, s->n);
    while (left.len) {
        int64_t number;
        ptrdiff_t semicolon = mu_bytes_find_char(left, ';');
        size_t n = semicolon < 0 ? left.len : (size_t)semicolon;
        if (mu_bytes_i64(mu_bytes_head(left, n), &number) == 0) {
            set_mode(s, number, on);
        }
        left = mu_bytes_from(left, n < left.len ? n + 1 : n);
    }
}

static void after_escape(struct mu_screen *s, char c)
{
    s->n = 0;
    s->at = TEXT;
    if (c == '[') {
        s->at = SEQUENCE;
    } else if (c == ']' || c == 'P' || c == '_' || c == '^' || c == 'X') {
        s->at = STRING;
    } else if (c == '=' || c == '>') {
        s->keypad = c == '=';
    } else if (c == 'c') { /* full reset */
        *s = (struct mu_screen){.at = TEXT};
    } else if (c >= 0x20 && c < 0x30) {
        s->at = ESCAPE; /* more of it follows */
    }
}

static void in_sequence(struct mu_screen *s, char c)
{
    if (s->at == SEQUENCE && s->n == 0 && c == '?') {
        s->at = PRIVATE;
    } else if (c >= 0x40 && c < 0x7f) { /* its last character */
        if (s->at == PRIVATE && (c == 'h' || c == 'l') && s->n < sizeof s->digits) {
            set_modes(s, c == 'h');
        }
        s->at = TEXT;
    } else if (s->n < sizeof s->digits) { /* too long: counted as full, and ignored */
        s->digits[s->n++] = c;
    }
}

void mu_screen_feed(struct mu_screen *s, mu_bytes bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        char c = bytes.ptr[i];
        if (c == 24 || c == 26) { /* cancels whatever is open */
            s->at = TEXT;
        } else if (s->at == STRING || s->at == STRING_ESCAPE) {
            bool ends = c == 7 || (s->at == STRING_ESCAPE && c == '\\');
            s->at = ends ? TEXT : c == 27 ? STRING_ESCAPE : STRING;
        } else if (c == 27) {
            s->at = ESCAPE;
        } else if (s->at == ESCAPE) {
            after_escape(s, c);
        } else if (s->at != TEXT) {
            in_sequence(s, c);
        }
    }
}

bool mu_screen_alternate(const struct mu_screen *s)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(modes); i++) {
        int n = modes[i].number;
        if (s->on[i] && (n == 47 || n == 1047 || n == 1049)) {
            return true;
        }
    }
    return false;
}

bool mu_screen_whole(const struct mu_screen *s)
{
    return s->at == TEXT;
}

size_t mu_screen_reset(const struct mu_screen *s, char dst[MU_SCREEN_RESET])
{
    /* an open string or sequence ends first; colours are not followed, so they always go */
    size_t n = (size_t)snprintf(dst, MU_SCREEN_RESET, "%s\033[0m%s", s->at == TEXT ? "" : "\030",
                                s->keypad ? "\033>" : "");
    for (size_t i = 0; i < MU_ARRAY_LEN(modes) && n < MU_SCREEN_RESET; i++) {
        if (s->on[i]) {
            n += (size_t)snprintf(dst + n, MU_SCREEN_RESET - n, "\033[?%d%c", modes[i].number,
                                  modes[i].usual ? 'h' : 'l');
        }
    }
    return MU_MIN(n, (size_t)MU_SCREEN_RESET - 1);
}
