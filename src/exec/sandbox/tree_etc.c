/* /etc of a sandbox: what is generated, copied, shown, and never shown (sandbox.md 4). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <sys/stat.h>

#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/sandbox.h"
#include "exec/sandbox/tree_int.h"

enum {
    COPY_MAX = 512 << 10, /* of one file */
    CHROMIUM_FILES = 16,
    RO = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY,
};

static const char *const copied[] = {
    "ld.so.cache", "ld.so.conf",           "localtime",       "timezone",
    "os-release",  "debian_version",       "mime.types",      "services",
    "protocols",   "bash.bashrc",          "profile",         "inputrc",
    "magic",       "ca-certificates.conf", "ssl/openssl.cnf", "locale.alias",
};
/* Patterns: with a star they are matched against what is there. */
static const char *const shown[] = {
    "ssl/certs", "alternatives", "ca-certificates", "pki",      "ld.so.conf.d", "fonts",
    "perl",      "python3*",     "terminfo",        "java-*",   "maven",        "profile.d",
    "X11",       "xdg",          "gtk-3.0",         "chromium", "vim",          "skel",
};
static const char *const never[] = {
    "shadow*", "gshadow*", "sudoers*",       "ssh",      "ssl/private", "environment",
    "default", "cron*",    "*.keytab",       "rancher",  "kubernetes",  "docker",
    "npmrc",   "muster",   "apt/auth.conf*", "pip.conf",
};

bool mu_tree_etc_forbidden(const char *name)
{
    /* A folder above a forbidden file shows it just as well, and so does a way around by "..". */
    if (!*name || *name == '/' || strstr(name, "..") || strstr(name, "//")) {
        return true;
    }
    size_t n = strlen(name);
    for (size_t i = 0; i < MU_ARRAY_LEN(never); i++) {
        if (fnmatch(never[i], name, FNM_PATHNAME | FNM_LEADING_DIR) == 0 ||
            (strncmp(never[i], name, n) == 0 && never[i][n] == '/')) {
            return true;
        }
    }
    return false;
}

static const char *etc_path(struct mu_tree *t, const char *name)
{
    const char *p = mu_arena_printf(t->arena, "etc/%s", name).ptr;
    t->failed = p ? t->failed : -ENOMEM;
    return p;
}

/* Of a regular file; NULL when it is not there, is none, or is too large. */
static const char *read_small(struct mu_tree *t, const char *path, size_t *len)
{
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > COPY_MAX) {
        return NULL;
    }
    char *text = mu_arena_alloc(t->arena, (size_t)st.st_size + 1);
    if (!text) {
        t->failed = -ENOMEM;
        return NULL;
    }
    size_t n = 0;
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, text + n, (size_t)st.st_size - n);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    *len = n;
    return text;
}

static void copy_file(struct mu_tree *t, const char *name)
{
    char path[256];
    size_t len = 0;
    snprintf(path, sizeof path, "/etc/%s", name);
    const char *text = read_small(t, path, &len);
    const char *at = text ? etc_path(t, name) : NULL;
    if (at) {
        mu_tree_text_(t, at, text, len);
    }
}

static void show(struct mu_tree *t, const char *name)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "/etc/%s", name);
    if (mu_tree_etc_forbidden(name) || stat(path, &st) < 0 ||
        !(S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))) {
        return;
    }
    const char *source = mu_arena_dup(t->arena, mu_str(path)).ptr;
    if (!source) {
        t->failed = -ENOMEM;
        return;
    }
    mu_tree_bind_(t, source, source + 1, S_ISDIR(st.st_mode), RO);
}

/* All entries of /etc that match a pattern of `shown` with a star. */
static void show_matching(struct mu_tree *t)
{
    DIR *dir = opendir("/etc");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        for (size_t i = 0; i < MU_ARRAY_LEN(shown); i++) {
            if (strchr(shown[i], '*') && fnmatch(shown[i], e->d_name, FNM_PATHNAME) == 0) {
                show(t, e->d_name);
            }
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static void generate(struct mu_tree *t, const char *name, const char *text)
{
    const char *at = etc_path(t, name);
    if (at) {
        mu_tree_text_(t, at, text, strlen(text));
    }
}

/* The browser's own sandbox needs user namespaces, which are off. */
static void plan_chromium(struct mu_tree *t, const struct mu_box *box)
{
    DIR *dir = opendir("/etc/chromium.d");
    int left = CHROMIUM_FILES;
    mu_tree_dir_(t, "etc/chromium.d");
    for (struct dirent *e; dir && left > 0 && (e = readdir(dir));) {
        if (e->d_name[0] != '.') {
            char name[300];
            snprintf(name, sizeof name, "chromium.d/%s", e->d_name);
            copy_file(t, name);
            left--;
        }
    }
    if (dir) {
        closedir(dir);
    }
    if (!box->nested) {
        generate(t, "chromium.d/zz-muster",
                 "export CHROMIUM_FLAGS=\"$CHROMIUM_FLAGS --no-sandbox\"\n");
    }
}

static void plan_generated(struct mu_tree *t, const struct mu_box *box)
{
    bool host_net = box->network == MU_NET_HOST;
    generate(t, "passwd",
             box->fake_root ? "root:x:0:0:root:/home/agent:/bin/bash\n"
                              "agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
                              "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                            : "root:x:0:0:root:/root:/usr/sbin/nologin\n"
                              "agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
                              "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    generate(t, "group", "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n");
    generate(t, "hosts", "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n");
    generate(t, "hostname", "sandbox\n");
    if (host_net) {
        copy_file(t, "resolv.conf");
    } else {
        generate(t, "resolv.conf", "");
    }
    generate(t, "nsswitch.conf",
             host_net ? "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
                      : "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"
                        "networks: files\nprotocols: files\nservices: files\n");
    generate(t, "shells", "/bin/sh\n/bin/bash\n/usr/bin/sh\n/usr/bin/bash\n");
    generate(t, "machine-id", "00000000000000000000000000000000\n");
    /* Only https has a way out. */
    generate(t, "gitconfig",
             "[url \"https://github.com/\"]\n\tinsteadOf = git@github.com:\n"
             "\tinsteadOf = ssh://git@github.com/\n"
             "[url \"https://gitlab.com/\"]\n\tinsteadOf = git@gitlab.com:\n"
             "\tinsteadOf = ssh://git@gitlab.com/\n"
             "[url \"https://bitbucket.org/\"]\n\tinsteadOf = git@bitbucket.org:\n"
             "\tinsteadOf = ssh://git@bitbucket.org/\n"
             "[safe]\n\tdirectory = *\n"
             "[user]\n\tname = agent\n\temail = agent@localhost\n"); /* a repository's own wins */
}

void mu_tree_plan_etc_(struct mu_tree *t, const struct mu_box *box)
{
    mu_tree_dir_(t, "etc");
    if (*box->base) { /* an unpacked base has its own; only who and where we are is ours */
        plan_generated(t, box);
        return;
    }
    plan_generated(t, box);
    mu_tree_dir_(t, "etc/ssl");
    for (size_t i = 0; i < MU_ARRAY_LEN(copied); i++) {
        copy_file(t, copied[i]);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(shown); i++) {
        if (!strchr(shown[i], '*')) {
            show(t, shown[i]);
        }
    }
    show_matching(t);
    plan_chromium(t, box);
    for (size_t i = 0; i < box->n_etc; i++) {
        show(t, box->etc[i]);
    }
}
