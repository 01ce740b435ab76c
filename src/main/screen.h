/* What a stream of terminal bytes has switched on, so that it can be switched off again. */
#ifndef MU_MAIN_SCREEN_H
#define MU_MAIN_SCREEN_H

#include "base/bytes.h"

enum { MU_SCREEN_MODES = 16, MU_SCREEN_DIGITS = 64 };

/* All zero is a stream that begins. */
struct mu_screen {
    bool on[MU_SCREEN_MODES]; /* differs from how a terminal usually is */
    bool keypad;
    unsigned char at; /* inside an escape sequence */
    char digits[MU_SCREEN_DIGITS];
    size_t n;
};
/* Follows the bytes, cut anywhere. */
void mu_screen_feed(struct mu_screen *s, mu_bytes bytes);
/* A program has taken the whole screen. */
bool mu_screen_alternate(const struct mu_screen *s);
/* Whether a line of ours may be written here: no sequence is open. */
bool mu_screen_whole(const struct mu_screen *s);
enum { MU_SCREEN_RESET = 200 };
/* The bytes that undo it all; returns how many. */
size_t mu_screen_reset(const struct mu_screen *s, char dst[MU_SCREEN_RESET]);

#endif
