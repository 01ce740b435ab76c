/* The settings as the commands that work on the data folder read them. */
#ifndef MU_MAIN_SETTINGS_H
#define MU_MAIN_SETTINGS_H

#include "main/cmd.h"
#include "main/config.h"

/* From --config and --set. 0, or MU_EXIT_USAGE after saying why; warnings go to stderr when
 * `warn`. */
MU_MUST_USE int mu_settings_of(const struct mu_cli *cli, bool warn, struct mu_config **ret);
/* The file behind DATABASE_URL; "" on PostgreSQL. */
void mu_settings_db_path(const struct mu_config *c, char *dst, size_t size);
static inline bool mu_settings_pg(const struct mu_config *c)
{
    return mu_bytes_starts(mu_str(c->database_url), MU_B("postgres"));
}

#endif
