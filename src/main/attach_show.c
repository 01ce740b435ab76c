#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>

#include "main/attach_int.h"
#include "main/ui.h"

void mu_attach_write(struct mu_attach *a, mu_bytes left)
{
    while (left.len && !a->over) {
        ssize_t n = write(1, left.ptr, left.len);
        if (n < 0 && errno == EAGAIN) { /* shares its flags with somebody */
            struct pollfd p = {.fd = 1, .events = POLLOUT};
            (void)poll(&p, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            mu_attach_over(a, MU_EXIT_FAILED);
        } else if (n > 0) {
            left = mu_bytes_from(left, (size_t)n);
        }
    }
}

/* In the top row where a program has the screen, else as a line. */
static void write_notes(struct mu_attach *a)
{
    if (!a->notes.len || !mu_screen_whole(&a->screen)) {
        return;
    }
    struct mu_buf b;
    bool top = mu_screen_alternate(&a->screen);
    mu_bytes left = mu_buf_bytes(&a->notes);
    mu_buf_init(&b, 4 * MU_ATTACH_NOTES);
    while (left.len) {
        ptrdiff_t n = mu_bytes_find_char(left, '\n');
        mu_buf_add_str(&b, top ? "\0337\033[1;1H\033[0;7m\033[K" : "\r\n\033[0;7m");
        mu_buf_add(&b, mu_bytes_head(left, (size_t)n));
        mu_buf_add_str(&b, top ? "\033[0m\0338" : "\033[0m\r\n");
        left = mu_bytes_from(left, (size_t)n + 1);
    }
    mu_buf_clear(&a->notes);
    mu_attach_write(a, mu_buf_bytes(&b));
    mu_buf_fini(&b);
}

void mu_attach_show(struct mu_attach *a, mu_bytes bytes)
{
    char reset[MU_SCREEN_RESET];
    if (a->tty) {
        mu_screen_feed(&a->screen, bytes);
        mu_terminal_farewell(mu_bytes_of(reset, mu_screen_reset(&a->screen, reset)));
    }
    mu_attach_write(a, bytes);
    write_notes(a);
}

void mu_attach_note(struct mu_attach *a, const char *fmt, ...)
{
    char text[1024];
    struct mu_buf clean;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    mu_buf_init(&clean, 2 * sizeof text);
    mu_ui_clean(&clean, mu_str(text), false);
    if (!a->tty || !a->term) {
        fprintf(stderr, "muster: %.*s\n", MU_ARGS(mu_buf_bytes(&clean)));
    } else if (a->notes.len + clean.len + 16 < MU_ATTACH_NOTES) {
        mu_buf_printf(&a->notes, "muster: %.*s\n", MU_ARGS(mu_buf_bytes(&clean)));
        write_notes(a);
    }
    mu_buf_fini(&clean);
}
