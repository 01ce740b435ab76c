/* Times as text. */
#ifndef MU_BASE_CLOCK_H
#define MU_BASE_CLOCK_H

#include "base/bytes.h"

enum { MU_TIME_LEN = 24 };

/* RFC 3339 UTC with exactly three fractional digits: "2026-01-31T09:08:16.986Z". `dst` gets 24
 * characters and a NUL. Times outside the years 0000 to 9999 are written as the nearest inside. */
void mu_time_format(int64_t ms, char dst[MU_TIME_LEN + 1]);
/* RFC 3339 with any number of fractional digits and Z or an offset.
 * MU_E_INVALID. */
MU_MUST_USE int mu_time_parse(mu_bytes text, int64_t *ret_ms);
/* An HTTP date (IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT"). MU_E_INVALID. */
MU_MUST_USE int mu_time_parse_http(mu_bytes text, int64_t *ret_ms);

struct mu_civil {
    int year, month, day, hour, minute, second, weekday; /* month 1..12, weekday 0 = Sunday */
};
struct mu_civil mu_civil_of(int64_t ms);
int64_t mu_civil_ms(const struct mu_civil *c);

#endif
