/* What is typed while attached: text for the terminal, and the keys that are ours. */
#ifndef MU_MAIN_ATTACH_KEYS_H
#define MU_MAIN_ATTACH_KEYS_H

#include "base/bytes.h"
#include "base/err.h"

enum mu_key {
    MU_KEY_NONE,   /* text only */
    MU_KEY_DETACH, /* the key, while nothing waits for a decision; twice while something does */
    MU_KEY_PREFIX, /* the key, while something waits: the next one says what becomes of it */
    MU_KEY_ALLOW,  /* … a */
    MU_KEY_DENY,   /* … d */
    MU_KEY_OTHER,  /* … something else, which is not sent */
};

struct mu_keys {
    int key; /* -1: none is ours */
    bool prefix;
};
/* "ctrl-]", "ctrl-a", "^]", "none"; any case. MU_E_INVALID. */
MU_MUST_USE int mu_keys_parse(mu_bytes text, int *ret);
/* Takes from the front of *typed what comes before the next key of ours (into *ret_text), and the
 * key. To be called until nothing is left. */
enum mu_key mu_keys_next(struct mu_keys *k, mu_bytes *typed, bool waiting, mu_bytes *ret_text);
/* How many bytes of it are whole characters: half of one waits for its rest. */
size_t mu_keys_whole(mu_bytes text);

#endif
