#include "proto/cron.h"

#include <stdio.h>

#include "base/clock.h"

enum { MAX_TEXT = 256 };

struct field {
    const char *name;
    int min, max;
    const char *words; /* three letters each, the first stands for `min` */
};

static const struct field fields[] = {
    {"minute", 0, 59, ""},
    {"hour", 0, 23, ""},
    {"day of month", 1, 31, ""},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"day of week", 0, 7, "sunmontuewedthufrisat"},
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, N_FIELDS };

static int refuse(const struct field *f, mu_bytes item, struct mu_err *err, const char *why)
{
    char shown[24];
    size_t n = 0;
    for (size_t i = 0; i < item.len && n < sizeof shown - 1; i++) {
        shown[n++] = item.ptr[i] > ' ' && item.ptr[i] < 127 ? item.ptr[i] : '?';
    }
    shown[n] = 0;
    return mu_err_set(err, MU_E_INVALID, "cron %s \"%s\": %s", f->name, shown, why);
}

/* At most four digits, so that it fits whatever is asked for. */
static bool number(mu_bytes text, int *ret)
{
    if (text.len == 0 || text.len > 4) {
        return false;
    }
    int v = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (text.ptr[i] - '0');
    }
    *ret = v;
    return true;
}

static bool value(const struct field *f, mu_bytes text, int *ret)
{
    size_t n = strlen(f->words) / 3;
    for (size_t i = 0; text.len == 3 && i < n; i++) {
        if (mu_bytes_eq_nocase(text, mu_bytes_of(f->words + 3 * i, 3))) {
            *ret = f->min + (int)i;
            return true;
        }
    }
    return number(text, ret) && *ret >= f->min && *ret <= f->max;
}

/* One item of a list: "*", n, a-b, each perhaps with "/step". */
static int parse_item(const struct field *f, mu_bytes item, uint64_t *bits, struct mu_err *err)
{
    mu_bytes rest = item, range = mu_bytes_split(&rest, '/');
    int step = 1, low = f->min, high = f->max;
    if (rest.ptr && (!number(rest, &step) || step < 1 || step > f->max - f->min + 1)) {
        return refuse(f, item, err, "the step is out of range");
    }
    if (!mu_bytes_is(range, "*")) {
        mu_bytes to = range, from = mu_bytes_split(&to, '-');
        if (!value(f, from, &low) || (to.ptr && !value(f, to, &high))) {
            char why[64];
            snprintf(why, sizeof why, "not a value from %d to %d", f->min, f->max);
            return refuse(f, item, err, why);
        }
        if (!to.ptr) {
            high = rest.ptr ? f->max : low;
        }
        if (f == &fields[WEEKDAY] && high == 0 && low > 0) {
            high = 7; /* "fri-sun" */
        }
        if (low > high) {
            return refuse(f, item, err, "the range runs backwards");
        }
    } else if (f == &fields[WEEKDAY]) {
        high = 6; /* 7 is Sunday again: a step must not count it twice */
    }
    for (int v = low; v <= high; v += step) {
        *bits |= UINT64_C(1) << v;
    }
    return 0;
}

static int parse_field(const struct field *f, mu_bytes text, uint64_t *ret, struct mu_err *err)
{
    uint64_t bits = 0;
    mu_bytes rest = text;
    while (rest.ptr) {
        int r = parse_item(f, mu_bytes_split(&rest, ','), &bits, err);
        if (r < 0) {
            return r;
        }
    }
    *ret = bits;
    return 0;
}

static mu_bytes next_field(mu_bytes *rest)
{
    *rest = mu_bytes_trim(*rest);
    size_t n = 0;
    while (n < rest->len && rest->ptr[n] != ' ' && rest->ptr[n] != '\t') {
        n++;
    }
    mu_bytes f = mu_bytes_head(*rest, n);
    *rest = mu_bytes_from(*rest, n);
    return f;
}

static int parse_fields(mu_bytes text, struct mu_cron *ret, struct mu_err *err)
{
    uint64_t bits[N_FIELDS];
    bool star[N_FIELDS];
    for (size_t i = 0; i < N_FIELDS; i++) {
        mu_bytes f = next_field(&text);
        if (f.len == 0) {
            return mu_err_set(err, MU_E_INVALID,
                              "cron: %zu of 5 fields (minute hour day-of-month month day-of-week)",
                              i);
        }
        int r = parse_field(&fields[i], f, &bits[i], err);
        if (r < 0) {
            return r;
        }
        star[i] = f.ptr[0] == '*';
    }
    if (mu_bytes_trim(text).len) {
        return mu_err_set(err, MU_E_INVALID, "cron: more than 5 fields");
    }
    bits[WEEKDAY] = (bits[WEEKDAY] | bits[WEEKDAY] >> 7) & 0x7f;
    *ret = (struct mu_cron){.minutes = bits[MINUTE],
                            .hours = (uint32_t)bits[HOUR],
                            .days = (uint32_t)bits[DAY],
                            .months = (uint32_t)bits[MONTH],
                            .weekdays = (uint32_t)bits[WEEKDAY],
                            .any_day = star[DAY],
                            .any_weekday = star[WEEKDAY]};
    return 0;
}

int mu_cron_parse(mu_bytes text, struct mu_cron *ret, struct mu_err *err)
{
    if (text.len > MAX_TEXT) {
        return mu_err_set(err, MU_E_INVALID, "cron: longer than %d bytes", MAX_TEXT);
    }
    return parse_fields(text, ret, err);
}

static bool day_matches(const struct mu_cron *c, const struct mu_civil *t)
{
    if (!(c->months >> t->month & 1)) {
        return false;
    }
    bool day = c->days >> t->day & 1, weekday = c->weekdays >> t->weekday & 1;
    return c->any_day || c->any_weekday ? day && weekday : day || weekday;
}

int mu_cron_next(const struct mu_cron *c, int64_t after_ms, int64_t *ret_ms)
{
    enum { MINUTE_MS = 60000, DAY_MS = 86400000, EIGHT_YEARS = 8 * 366 };
    /* the range in which civil dates have four digits; beyond it nothing is ever due */
    if (after_ms < -INT64_C(62167219200000) || after_ms > INT64_C(253402300799999)) {
        return MU_E_NOT_FOUND;
    }
    int64_t minute = after_ms / MINUTE_MS - (after_ms % MINUTE_MS < 0) + 1;
    int64_t start_ms = minute * MINUTE_MS;
    int64_t day_ms = (start_ms / DAY_MS - (start_ms % DAY_MS < 0)) * DAY_MS;
    int from = (int)((start_ms - day_ms) / MINUTE_MS);
    for (int d = 0; d <= EIGHT_YEARS; d++, day_ms += DAY_MS, from = 0) {
        struct mu_civil t = mu_civil_of(day_ms);
        if (!day_matches(c, &t)) {
            continue;
        }
        for (int m = from; m < 24 * 60; m++) {
            if (!(c->hours >> (m / 60) & 1)) {
                m += 59 - m % 60;
            } else if (c->minutes >> (m % 60) & 1) {
                *ret_ms = day_ms + (int64_t)m * MINUTE_MS;
                return 0;
            }
        }
    }
    return MU_E_NOT_FOUND;
}
