/* Shared by the files of the configuration only. */
#ifndef MU_MAIN_CONFIG_INT_H
#define MU_MAIN_CONFIG_INT_H

#include "main/config.h"

enum { MU_CONFIG_MAX_BYTES = 4 * 1024 * 1024, MU_CONFIG_MAX_FILE = 1024 * 1024 };

/* One variable as some source gave it. */
struct mu_setting {
    mu_bytes name;  /* as it was written */
    mu_bytes value; /* trimmed; of NAME_FILE: the file's content */
    enum mu_config_source source;
    bool from_file; /* it was NAME_FILE */
};

/* Everything that was given, later sources behind earlier ones. */
struct mu_settings {
    struct mu_setting *items;
    size_t n, cap;
    struct mu_arena *arena;
};

/* The last one of that name, or NULL. */
const struct mu_setting *mu_settings_find(const struct mu_settings *s, mu_bytes name);
MU_MUST_USE int mu_settings_add(struct mu_settings *s, const struct mu_setting *item,
                                struct mu_err *err);

/* "NAME = value" lines with comments, [sections] (which only group) and quotes. A file that does
 * not exist is MU_E_NOT_FOUND. Errors name file and line. */
MU_MUST_USE int mu_config_read_file(struct mu_arena *a, const char *path,
                                    int (*on_pair)(void *arg, mu_bytes name, mu_bytes value,
                                                   unsigned line, struct mu_err *err),
                                    void *arg, struct mu_err *err);
/* The content of a file that holds one value, trimmed. */
MU_MUST_USE int mu_config_read_value(struct mu_arena *a, const char *path, mu_bytes *ret,
                                     struct mu_err *err);

/* What a name is. */
enum mu_config_name {
    MU_NAME_UNKNOWN,
    MU_NAME_ROW,      /* of the table, or an alias of one */
    MU_NAME_PROVIDER, /* OZ_PROVIDER_<KEY>_… */
    MU_NAME_FALLBACK, /* OZ_PROVIDER_FALLBACK_ORDER_<HARNESS> */
    MU_NAME_LATER,    /* of the specification, not used by this version */
    MU_NAME_IGNORED,  /* read by clients or inside sandboxes, or never */
};
enum mu_config_name mu_config_classify(mu_bytes name);
/* The known name that is nearest to `name`, or NULL when none is near. */
const char *mu_config_nearest(mu_bytes name);

/* Splits OZ_PROVIDER_<KEY>_<WHAT>: the key in lower case with "_" for other characters into `key`
 * (at most 63 characters). The row of WHAT, or NULL. */
const struct mu_option *mu_provider_var(mu_bytes name, char key[64]);
/* Lower case, every run of characters outside a-z0-9 as one "_". */
void mu_config_harness_word(mu_bytes text, char *dst, size_t size);

/* Fills c->provider_list, c->providers, c->given from the settings. */
MU_MUST_USE int mu_config_providers(struct mu_config *c, const struct mu_settings *s,
                                    struct mu_buf *warnings, struct mu_err *err);
/* Room for one more provider; the entry has the defaults of its type. NULL when out of memory. */
struct mu_provider_conf *mu_config_add_provider(struct mu_config *c, const char *key,
                                                enum mu_provider_type type);

/* The model that the server on that loopback port names first (GET /v1/models); false when there is
 * none. */
bool mu_discover_local(struct mu_arena *a, unsigned port, const char **ret_model);
/* mu_config_discover() with the ports to look at, ended by 0. */
MU_MUST_USE int mu_discover(struct mu_config *c, const char *path, const unsigned *ports,
                            struct mu_err *err);
/* The part of docs/configuration.md about OZ_PROVIDER_<KEY>_*. */
void mu_provider_markdown(struct mu_buf *dst);

#endif
