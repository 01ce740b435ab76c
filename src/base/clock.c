#include "base/clock.h"

#include "base/err.h"

/* Days since 1970-01-01 of a civil date and back, by the usual era arithmetic (400-year cycles from
 * March). */
static int64_t days_of(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

struct mu_civil mu_civil_of(int64_t ms)
{
    int64_t secs = ms / 1000 - (ms % 1000 < 0);
    int64_t days = secs / 86400 - (secs % 86400 < 0);
    int64_t sod = secs - days * 86400;
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9;
    int64_t wd = (days % 7 + 11) % 7;
    return (struct mu_civil){.year = (int)(yoe + era * 400 + (month <= 2)),
                             .month = (int)month,
                             .day = (int)(doy - (153 * mp + 2) / 5 + 1),
                             .hour = (int)(sod / 3600),
                             .minute = (int)(sod / 60 % 60),
                             .second = (int)(sod % 60),
                             .weekday = (int)wd};
}

int64_t mu_civil_ms(const struct mu_civil *c)
{
    return ((days_of(c->year, c->month, c->day) * 24 + c->hour) * 60 + c->minute) * 60000 +
           (int64_t)c->second * 1000;
}

static void digits(char *dst, int n, int v)
{
    for (int i = n - 1; i >= 0; i--) {
        dst[i] = (char)('0' + v % 10);
        v /= 10;
    }
}

void mu_time_format(int64_t ms, char dst[MU_TIME_LEN + 1])
{
    /* years of more or less than four digits cannot be written in this form */
    ms = MU_MAX(ms, -INT64_C(62167219200000));
    ms = MU_MIN(ms, INT64_C(253402300799999));
    struct mu_civil c = mu_civil_of(ms);
    memcpy(dst, "0000-00-00T00:00:00.000Z", MU_TIME_LEN + 1);
    digits(dst, 4, c.year);
    digits(dst + 5, 2, c.month);
    digits(dst + 8, 2, c.day);
    digits(dst + 11, 2, c.hour);
    digits(dst + 14, 2, c.minute);
    digits(dst + 17, 2, c.second);
    digits(dst + 20, 3, (int)((ms % 1000 + 1000) % 1000));
}

static bool number(mu_bytes *b, size_t n, int *ret)
{
    if (b->len < n) {
        return false;
    }
    int v = 0;
    for (size_t i = 0; i < n; i++) {
        if (b->ptr[i] < '0' || b->ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (b->ptr[i] - '0');
    }
    *b = mu_bytes_from(*b, n);
    *ret = v;
    return true;
}

static bool literal(mu_bytes *b, char c)
{
    if (b->len == 0 || b->ptr[0] != c) {
        return false;
    }
    *b = mu_bytes_from(*b, 1);
    return true;
}

static bool civil_ok(const struct mu_civil *c)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (c->month < 1 || c->month > 12 || c->day < 1 || c->day > days[c->month - 1] ||
        c->hour > 23 || c->minute > 59 || c->second > 60) {
        return false;
    }
    bool leap = (c->year % 4 == 0 && c->year % 100 != 0) || c->year % 400 == 0;
    return c->month != 2 || c->day < 29 || leap;
}

/* Reads the part behind the date: time, fraction, zone. */
static bool parse_clock(mu_bytes *b, struct mu_civil *c, int *frac_ms, int *offset_min)
{
    if (!number(b, 2, &c->hour) || !literal(b, ':') || !number(b, 2, &c->minute) ||
        !literal(b, ':') || !number(b, 2, &c->second)) {
        return false;
    }
    if (literal(b, '.')) {
        int scale = 100, d;
        bool seen = false;
        while (number(b, 1, &d)) {
            *frac_ms += d * scale;
            scale /= 10;
            seen = true;
        }
        if (!seen) {
            return false;
        }
    }
    if (literal(b, 'Z') || literal(b, 'z')) {
        return true;
    }
    int sign = literal(b, '+') ? 1 : literal(b, '-') ? -1 : 0;
    int h, m;
    if (!sign || !number(b, 2, &h) || !literal(b, ':') || !number(b, 2, &m) || h > 23 || m > 59) {
        return false;
    }
    *offset_min = sign * (h * 60 + m);
    return true;
}

int mu_time_parse(mu_bytes b, int64_t *ret_ms)
{
    struct mu_civil c = {0};
    int frac = 0, offset = 0;
    if (!number(&b, 4, &c.year) || !literal(&b, '-') || !number(&b, 2, &c.month) ||
        !literal(&b, '-') || !number(&b, 2, &c.day)) {
        return MU_E_INVALID;
    }
    if (!literal(&b, 'T') && !literal(&b, 't') && !literal(&b, ' ')) {
        return MU_E_INVALID;
    }
    if (!parse_clock(&b, &c, &frac, &offset) || b.len || !civil_ok(&c)) {
        return MU_E_INVALID;
    }
    *ret_ms = mu_civil_ms(&c) + frac - (int64_t)offset * 60000;
    return 0;
}

int mu_time_parse_http(mu_bytes b, int64_t *ret_ms)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct mu_civil c = {0};
    ptrdiff_t comma = mu_bytes_find_char(b, ',');
    if (comma != 3) {
        return MU_E_INVALID;
    }
    b = mu_bytes_from(b, 4);
    if (!literal(&b, ' ') || !number(&b, 2, &c.day) || !literal(&b, ' ') || b.len < 4) {
        return MU_E_INVALID;
    }
    for (int i = 0; i < 12; i++) {
        if (memcmp(b.ptr, months + 3 * i, 3) == 0) {
            c.month = i + 1;
        }
    }
    b = mu_bytes_from(b, 3);
    if (!c.month || !literal(&b, ' ') || !number(&b, 4, &c.year) || !literal(&b, ' ') ||
        !number(&b, 2, &c.hour) || !literal(&b, ':') || !number(&b, 2, &c.minute) ||
        !literal(&b, ':') || !number(&b, 2, &c.second) || !mu_bytes_is(b, " GMT") ||
        !civil_ok(&c)) {
        return MU_E_INVALID;
    }
    *ret_ms = mu_civil_ms(&c);
    return 0;
}
