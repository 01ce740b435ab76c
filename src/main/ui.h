/* What the client commands print: tables, times, a status line. */
#ifndef MU_MAIN_UI_H
#define MU_MAIN_UI_H

#include <stdio.h>

#include "base/buf.h"

/* Colours and moving lines only on a terminal, and not with NO_COLOR or TERM=dumb. */
bool mu_ui_tty(FILE *f);
bool mu_ui_colour(FILE *f);
/* Columns of the terminal; 0 when stdout is none (nothing is cut then). */
size_t mu_ui_width(void);
/* Text of the server as it may be shown on a terminal: control characters (and with them escape
 * sequences) are left out; newlines and tabs stay when `lines`. */
void mu_ui_clean(struct mu_buf *dst, mu_bytes text, bool lines);
/* Prints it; cleaned only when stdout is a terminal. */
void mu_ui_text(mu_bytes text);
/* "3m ago", "in 2h", "-" for "". `time` is RFC 3339. */
void mu_ui_ago(mu_bytes time, char *dst, size_t size);
/* A line "name  value" of one thing that is shown, cleaned; nothing for an empty value. */
void mu_ui_row(const char *name, mu_bytes value);
/* The same of a time, and how long ago that is. */
void mu_ui_time_row(const char *name, mu_bytes time);
/* "1m 5s" between two times; an empty `to` is now; "-" without a start. */
void mu_ui_span(mu_bytes from, mu_bytes to, char *dst, size_t size);
void mu_ui_seconds(int64_t seconds, char *dst, size_t size);
/* The escape sequence that begins the colour of a state, or "" (also without colour). */
const char *mu_ui_state_colour(FILE *f, mu_bytes state);
const char *mu_ui_reset(FILE *f);

/* A table: cells are copied. The last column is cut to the terminal. */
enum { MU_TABLE_COLUMNS = 8 };
struct mu_table {
    struct mu_buf cells; /* NUL-separated, row by row; the first row is the heading */
    size_t columns, n;
    int state_column; /* coloured as a state; -1 = none */
};
void mu_table_init(struct mu_table *t, const char *const *headings, size_t columns);
void mu_table_cell(struct mu_table *t, mu_bytes text);
/* Prints, and frees. */
void mu_table_end(struct mu_table *t);

#endif
