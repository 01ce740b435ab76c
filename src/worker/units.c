#include "worker/units.h"

#include "base/err.h"

enum { MAX_MS_DIGITS = 12 };

/* Digits with an optional fraction, in thousandths. */
static bool number(mu_bytes *rest, int64_t *ret_thousandths)
{
    int64_t v = 0;
    size_t i = 0, digits = 0, scale = 1000;
    bool fraction = false;
    for (; i < rest->len; i++) {
        char c = rest->ptr[i];
        if (c == '.' && !fraction) {
            fraction = true;
        } else if (c >= '0' && c <= '9') {
            digits++;
            if (digits > MAX_MS_DIGITS) {
                return false;
            }
            if (!fraction) {
                v = v * 10 + (int64_t)(c - '0') * 1000;
            } else {
                scale /= 10;
                v += (int64_t)(c - '0') * (int64_t)scale;
            }
        } else {
            break;
        }
    }
    *rest = mu_bytes_from(*rest, i);
    *ret_thousandths = v;
    return digits > 0;
}

static mu_bytes word(mu_bytes *rest)
{
    size_t i = 0;
    while (i < rest->len && ((rest->ptr[i] | 32) >= 'a' && (rest->ptr[i] | 32) <= 'z')) {
        i++;
    }
    mu_bytes w = mu_bytes_head(*rest, i);
    *rest = mu_bytes_from(*rest, i);
    return w;
}

int mu_duration_parse(mu_bytes text, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t us;
    } units[] = {{"us", 1},       {"ms", 1000},      {"s", 1000000},
                 {"m", 60000000}, {"h", 3600000000}, {"d", 86400000000}};
    mu_bytes rest = mu_bytes_trim(text);
    if (mu_bytes_is(rest, "0")) {
        *ret_ms = 0;
        return 0;
    }
    int64_t total = 0;
    if (rest.len == 0) {
        return MU_E_INVALID;
    }
    while (rest.len) {
        int64_t n, us = 0;
        if (!number(&rest, &n)) {
            return MU_E_INVALID;
        }
        mu_bytes unit = word(&rest);
        for (size_t i = 0; i < MU_ARRAY_LEN(units); i++) {
            us = mu_bytes_is(unit, units[i].unit) ? units[i].us : us;
        }
        int64_t part;
        if (us == 0 || __builtin_mul_overflow(n, us, &part) ||
            __builtin_add_overflow(total, part, &total)) {
            return MU_E_INVALID;
        }
    }
    *ret_ms = total / 1000000;
    return 0;
}

int mu_size_parse(mu_bytes text, int64_t *ret)
{
    mu_bytes rest = mu_bytes_trim(text);
    int64_t n, unit = 1;
    if (!number(&rest, &n)) {
        return MU_E_INVALID;
    }
    mu_bytes w = word(&rest);
    static const char letters[] = "kmgt";
    if (w.len && (w.ptr[0] | 32) != 'b') {
        const char *at = strchr(letters, w.ptr[0] | 32);
        if (!at || !*at) {
            return MU_E_INVALID;
        }
        unit = INT64_C(1) << (10 * (at - letters + 1));
        w = mu_bytes_from(w, 1);
        w = mu_bytes_from(w, w.len && (w.ptr[0] | 32) == 'i' ? 1 : 0);
    }
    w = mu_bytes_from(w, w.len && (w.ptr[0] | 32) == 'b' ? 1 : 0);
    int64_t v;
    if (w.len || rest.len || __builtin_mul_overflow(n, unit, &v)) {
        return MU_E_INVALID;
    }
    *ret = v / 1000;
    return 0;
}
