#include "main/attach_keys.h"

#include <ctype.h>

int mu_keys_parse(mu_bytes text, int *ret)
{
    if (mu_bytes_eq_nocase(text, MU_B("none"))) {
        *ret = -1;
        return 0;
    }
    bool ctrl = mu_bytes_eq_nocase(mu_bytes_head(text, 5), MU_B("ctrl-")) && text.len == 6;
    bool caret = text.len == 2 && text.ptr[0] == '^';
    int c = ctrl || caret ? toupper((unsigned char)text.ptr[text.len - 1]) : 0;
    if (c < '@' || c > '_' || c == 'M' || c == 'J') { /* Enter stays Enter */
        return MU_E_INVALID;
    }
    *ret = c - '@';
    return 0;
}

enum mu_key mu_keys_next(struct mu_keys *k, mu_bytes *typed, bool waiting, mu_bytes *ret_text)
{
    *ret_text = MU_B_NONE;
    if (typed->len && k->prefix) {
        unsigned char c = (unsigned char)typed->ptr[0];
        k->prefix = false;
        *typed = mu_bytes_from(*typed, 1);
        return c == k->key            ? MU_KEY_DETACH
               : c == 'a' || c == 'A' ? MU_KEY_ALLOW
               : c == 'd' || c == 'D' ? MU_KEY_DENY
                                      : MU_KEY_OTHER;
    }
    ptrdiff_t at = k->key < 0 ? -1 : mu_bytes_find_char(*typed, (char)k->key);
    if (at < 0) {
        *ret_text = *typed;
        *typed = MU_B_NONE;
        return MU_KEY_NONE;
    }
    *ret_text = mu_bytes_head(*typed, (size_t)at);
    *typed = mu_bytes_from(*typed, (size_t)at + 1);
    k->prefix = waiting;
    return waiting ? MU_KEY_PREFIX : MU_KEY_DETACH;
}

size_t mu_keys_whole(mu_bytes text)
{
    size_t back = 0;
    while (back < 3 && back < text.len) {
        unsigned char c = (unsigned char)text.ptr[text.len - 1 - back];
        back++;
        if (c < 0x80) {
            return text.len;
        }
        if (c >= 0xc0) { /* a first byte: how many belong to it? */
            size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
            return back < want ? text.len - back : text.len;
        }
    }
    return text.len;
}
