#include "main/suggest.h"

enum { LONGEST = 64 };

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

unsigned mu_edit_distance(mu_bytes a, mu_bytes b)
{
    if (a.len > LONGEST || b.len > LONGEST) {
        return LONGEST;
    }
    unsigned rows[3][LONGEST + 1];
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b.len; j++) {
        last[j] = (unsigned)j;
        before[j] = 0;
    }
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            char x = lower(a.ptr[i - 1]), y = lower(b.ptr[j - 1]);
            unsigned best = MU_MIN(MU_MIN(last[j] + 1, now[j - 1] + 1), last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == lower(b.ptr[j - 2]) && lower(a.ptr[i - 2]) == y) {
                best = MU_MIN(best, before[j - 2] + 1);
            }
            now[j] = best;
        }
        unsigned *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b.len];
}

bool mu_edit_near(mu_bytes given, unsigned distance)
{
    return distance <= 2 + given.len / 6 && distance < given.len;
}
