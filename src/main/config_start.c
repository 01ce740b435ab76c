/* The first start: the data folder, and the secrets that nobody set. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "io/key_file.h"
#include "main/config_int.h"

static int make_folders(const char *path, struct mu_err *err)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) {
        return mu_err_set(err, MU_E_INVALID, "the folder's path is empty or too long");
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) {
            continue;
        }
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0700) < 0 && errno != EEXIST) {
            /* A parent may be unreadable to us and yet exist: only the last one must succeed. */
            struct stat st;
            int why = errno;
            if (path[i] == 0 || (why != EACCES && why != EROFS) || stat(part, &st) < 0) {
                return mu_err_set(err, -why, "cannot create the folder %s: %s", part,
                                  mu_err_text(-why));
            }
        }
    }
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return mu_err_set(err, MU_E_INVALID, "%s is not a folder", path);
    }
    return 0;
}

static int read_key(struct mu_config *c, const char *path, const char **ret, struct mu_err *err)
{
    struct mu_buf key;
    mu_buf_init(&key, MU_KEY_FILE_MAX);
    int r = mu_key_file_read(path, &key, err);
    if (r == 0) {
        *ret = mu_arena_dup(&c->arena, mu_buf_bytes(&key)).ptr;
        r = *ret ? 0 : mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    mu_buf_wipe(&key);
    mu_buf_fini(&key);
    return r;
}

struct secret {
    const char *variable, *file, *prefix;
    const char **field;
    bool *made;
};

static int one_secret(struct mu_config *c, const struct mu_env *env, const struct secret *s,
                      struct mu_err *err)
{
    char path[4160];
    if (snprintf(path, sizeof path, "%s/%s", c->data_dir, s->file) >= (int)sizeof path) {
        return mu_err_set(err, MU_E_INVALID, "OZ_DATA_DIR: the path is too long");
    }
    int r = read_key(c, path, s->field, err);
    if (r != MU_E_NOT_FOUND) {
        return r;
    }
    r = mu_key_file_make(env, c->data_dir, s->file, s->prefix);
    if (r < 0 && r != -EEXIST) {
        return mu_err_set(err, r, "cannot create %s: %s", path, mu_err_text(r));
    }
    if (r == 0 && s->made) {
        *s->made = true;
    }
    return read_key(c, path, s->field, err);
}

static void mark_generated(struct mu_config *c, const char *variable)
{
    for (size_t i = 0; i < mu_config_table_len; i++) {
        if (!strcmp(mu_config_table[i].name, variable)) {
            c->sources[i] = MU_FROM_GENERATED;
        }
    }
}

static bool database_given(const struct mu_config *c)
{
    for (size_t i = 0; i < mu_config_table_len; i++) {
        if (!strcmp(mu_config_table[i].name, "DATABASE_URL")) {
            return c->sources[i] != MU_FROM_DEFAULT;
        }
    }
    return false;
}

/* In production nothing is made up; everything that is missing is named at once. */
static int check_production(const struct mu_config *c, struct mu_err *err)
{
    const struct {
        const char *variable;
        bool missing;
    } needed[] = {{"DATABASE_URL", !database_given(c)},
                  {"OZ_ADMIN_API_KEY", !c->admin_key && !c->allow_no_admin_key},
                  {"ENCRYPTION_KEY", !c->encryption_key}};
    char names[128] = "";
    if (strcmp(c->environment, "production") != 0) {
        return 0;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(needed); i++) {
        size_t n = strlen(names);
        if (needed[i].missing) {
            snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", needed[i].variable);
        }
    }
    return names[0] ? mu_err_set(err, MU_E_INVALID,
                                 "ENVIRONMENT=production requires %s: set it (or NAME_FILE)", names)
                    : 0;
}

int mu_config_first_start(struct mu_config *c, const struct mu_env *env, bool *ret_new_admin_key,
                          struct mu_err *err)
{
    bool made = false;
    int r = check_production(c, err);
    if (r < 0) {
        return r;
    }
    r = make_folders(c->data_dir, err);
    if (r < 0) {
        mu_err_context(err, "OZ_DATA_DIR");
        return r;
    }
    r = make_folders(c->blob_dir, err);
    if (r < 0) {
        mu_err_context(err, "OZ_BLOB_DIR");
        return r;
    }
    if (!c->admin_key && !c->allow_no_admin_key) {
        const struct secret admin = {"OZ_ADMIN_API_KEY", "admin.key", "adm_", &c->admin_key, &made};
        r = one_secret(c, env, &admin, err);
        if (r < 0) {
            return r;
        }
        mark_generated(c, "OZ_ADMIN_API_KEY");
    }
    if (!c->encryption_key) {
        const struct secret root = {"ENCRYPTION_KEY", "encryption.key", "", &c->encryption_key,
                                    NULL};
        r = one_secret(c, env, &root, err);
        if (r < 0) {
            return r;
        }
        mark_generated(c, "ENCRYPTION_KEY");
    }
    *ret_new_admin_key = made;
    return 0;
}
