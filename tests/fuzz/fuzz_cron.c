/* What parses has a next time that lies ahead, on a full minute, and matches. */
#include "base/clock.h"
#include "fuzz.h"
#include "proto/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mu_cron c;
    struct mu_err err;
    mu_bytes in = fuzz_bytes(data, size);
    int64_t after = 0, next;
    if (in.len > 8) { /* a point in time first, any of them */
        memcpy(&after, in.ptr, 8);
        if (fuzz_byte(&in) & 1) {
            after %= INT64_C(4102444800000);
        }
        in = mu_bytes_from(in, 7);
    }
    if (mu_cron_parse(in, &c, &err) < 0) {
        MU_CHECK(err.text[0]);
        return 0;
    }
    MU_CHECK(c.minutes && c.hours && c.days && c.months && c.weekdays);
    MU_CHECK(!(c.minutes >> 60) && !(c.hours >> 24) && !(c.days & 1) && !(c.months & 1) &&
             !(c.months >> 13) && !(c.weekdays >> 7));
    if (mu_cron_next(&c, after, &next) == 0) {
        struct mu_civil t = mu_civil_of(next);
        MU_CHECK(next > after && next % 60000 == 0);
        MU_CHECK((c.minutes >> t.minute & 1) && (c.hours >> t.hour & 1) &&
                 (c.months >> t.month & 1));
        MU_CHECK((c.days >> t.day & 1) || (c.weekdays >> t.weekday & 1));
    }
    return 0;
}
