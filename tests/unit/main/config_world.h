/* What the tests of the configuration share: loading from given settings, folders, files. */
#ifndef MU_TEST_MAIN_CONFIG_WORLD_H
#define MU_TEST_MAIN_CONFIG_WORLD_H

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "main/config_int.h"

#define HOME "HOME=/home/somebody"

struct loaded {
    struct mu_config *c;
    struct mu_buf warnings;
    struct mu_err err;
    int r;
};

static inline void load_with(struct loaded *l, const char *ini, const char *const *env,
                             const char *const *flags)
{
    struct mu_config_args args = {.ini_file = ini, .environ_ = env, .flags = flags};
    memset(l, 0, sizeof *l);
    mu_buf_init(&l->warnings, 65536);
    l->r = mu_config_load(&args, &l->c, &l->warnings, &l->err);
}
#define LOAD(l, ...) load_with(l, NULL, (const char *const[]){HOME, __VA_ARGS__, NULL}, NULL)

static inline void loaded_fini(struct loaded *l)
{
    mu_config_free(l->c);
    mu_buf_fini(&l->warnings);
}

static inline bool warned(struct loaded *l, const char *text)
{
    return mu_bytes_find(mu_buf_bytes(&l->warnings), mu_str(text)) >= 0;
}

static inline const struct mu_provider_conf *provider(struct loaded *l, const char *key)
{
    for (size_t i = 0; l->c && i < l->c->provider_list.n; i++) {
        if (!strcmp(l->c->provider_list.items[i].key, key)) {
            return &l->c->provider_list.items[i];
        }
    }
    return NULL;
}

/* A private folder, with its files removed at the end. */
struct folder {
    char path[64];
};
static inline void folder_init(struct folder *f)
{
    snprintf(f->path, sizeof f->path, "/tmp/mu_config_XXXXXX");
    assert_non_null(mkdtemp(f->path));
}
static inline void folder_fini(struct folder *f)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", f->path);
    assert_int_equal(system(cmd), 0);
}
static inline const char *file_in(struct folder *f, const char *name, const char *content,
                                  mode_t mode)
{
    static char path[4][160];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, 160, "%s/%s", f->path, name);
    int fd = open(p, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
    return p;
}

#endif
