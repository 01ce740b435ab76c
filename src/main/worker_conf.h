/* The settings of `muster worker`: flags, config file, variables, defaults, in this order
 * (oz-worker.md 7). */
#ifndef MU_MAIN_WORKER_CONF_H
#define MU_MAIN_WORKER_CONF_H

#include "main/cmd.h"
#include "main/config.h"
#include "worker/worker.h"

enum { MU_WORKER_MAX_LIST = 1024 };

struct mu_worker_settings {
    struct mu_worker_conf conf;
    struct mu_config *config; /* owns part of the texts */
    struct mu_arena arena;    /* owns the others */
    bool metrics_given;       /* a listener that cannot be had is fatal then */
    char hostname[65];
};

/* `cli` may be NULL (doctor): only variables and defaults, and no key is needed. The configuration
 * is taken over. MU_E_INVALID worded, -ENOMEM. */
MU_MUST_USE int mu_worker_settings_load(struct mu_worker_settings *s, struct mu_config *config,
                                        const struct mu_cli *cli, struct mu_err *err);
void mu_worker_settings_fini(struct mu_worker_settings *s);

#endif
