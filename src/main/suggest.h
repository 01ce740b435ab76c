/* "Did you mean": the nearest of some words. */
#ifndef MU_MAIN_SUGGEST_H
#define MU_MAIN_SUGGEST_H

#include "base/bytes.h"

/* Edits (insert, remove, replace, swap of neighbours) that turn a into b, ASCII case ignored; texts
 * longer than 64 bytes count as far away. */
unsigned mu_edit_distance(mu_bytes a, mu_bytes b);
/* Whether a word at that distance is worth naming. */
bool mu_edit_near(mu_bytes given, unsigned distance);

#endif
