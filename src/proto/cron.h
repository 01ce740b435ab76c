/* Cron expressions of five fields in UTC (oz-api.md 15.5): minute hour day-of-month month
 * day-of-week. */
#ifndef MU_PROTO_CRON_H
#define MU_PROTO_CRON_H

#include "base/bytes.h"
#include "base/err.h"

struct mu_cron {
    uint64_t minutes; /* bit n = minute n */
    uint32_t hours, days, months,
        weekdays;              /* days: bits 1..31, months: 1..12, weekdays: 0..6, 0 = Sunday */
    bool any_day, any_weekday; /* the field was "*" (or "*" + "/n"): when neither is, a day matches
                                  if either field does */
};

/* Fields: "*", n, a-b, lists, "/step", names (jan, mon) in any case, 7 = Sunday. MU_E_INVALID with
 * words that name the field. At most 256 bytes. */
MU_MUST_USE int mu_cron_parse(mu_bytes text, struct mu_cron *ret, struct mu_err *err);
/* The first match strictly after `after_ms`, at second 0. MU_E_NOT_FOUND when there is none within
 * 8 years (30 February). */
MU_MUST_USE int mu_cron_next(const struct mu_cron *c, int64_t after_ms, int64_t *ret_ms);

#endif
