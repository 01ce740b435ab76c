#include "exec/sandbox/landlock_int.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "exec/sandbox/linux_int.h"

enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_BLOCK = 1 << 11,
    FS_TRUNCATE = 1 << 14,
    FS_IOCTL_DEV = 1 << 15,
    FS_READ = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR,
    FS_FILE = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
    NET_BIND = 1,
    NET_CONNECT = 2,
    SCOPE_ABSTRACT = 1,
    SCOPE_SIGNAL = 2,
    ABI_NET = 4,
    ABI_SCOPE = 6,
    RULE_PATH = 1,
};
struct ruleset_attr {
    uint64_t fs, net, scoped;
};
struct path_attr {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

int mu_landlock_abi(void)
{
    long r = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    return r < 0 ? 0 : (int)r;
}

/* All rights on files that this version knows. */
static uint64_t all_rights(int abi)
{
    static const unsigned char bits[] = {0, 13, 14, 15, 15}; /* of versions 1 to 4 */
    return (1ULL << (abi > 4 ? 16 : bits[abi])) - 1;
}

static const struct mu_landlock_path tree_paths[] = {
    {"/", false, false},   {"/workspace", true, false}, {"/home/agent", true, false},
    {"/tmp", true, false}, {"/var/tmp", true, false},   {"/run", true, false},
    {"/dev", true, true},  {"/proc", true, false},
};
const struct mu_landlock_rules mu_landlock_tree = {tree_paths, MU_ARRAY_LEN(tree_paths), false};
static const struct mu_landlock_path root_paths[] = {{"/", true, false}, {"/dev", true, true}};
const struct mu_landlock_rules mu_landlock_root = {root_paths, MU_ARRAY_LEN(root_paths), false};

static int allow(int ruleset, const struct mu_landlock_path *p, uint64_t all)
{
    struct stat st;
    MU_AUTO_CLOSE int fd = open(p->path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == EACCES ? 0 : -1;
    }
    uint64_t rights =
        p->writable ? all & ~(uint64_t)(FS_MAKE_CHAR | FS_MAKE_BLOCK | FS_IOCTL_DEV) : FS_READ;
    rights |= p->ioctl ? FS_IOCTL_DEV : 0;
    if (fstat(fd, &st) < 0) {
        return -1;
    }
    rights &= S_ISDIR(st.st_mode) ? ~0ULL : FS_FILE;
    struct path_attr attr = {rights & all, fd};
    return (int)syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &attr, 0);
}

int mu_landlock_apply(const struct mu_landlock_rules *rules, struct mu_failure *f)
{
    int abi = mu_landlock_abi();
    if (abi == 0) {
        return mu_fail(f, "landlock", "not in this kernel");
    }
    uint64_t all = all_rights(abi);
    struct ruleset_attr attr = {.fs = all};
    attr.net = rules->tcp && abi >= ABI_NET ? NET_BIND | NET_CONNECT : 0;
    attr.scoped = abi >= ABI_SCOPE ? SCOPE_ABSTRACT | SCOPE_SIGNAL : 0;
    size_t size = abi >= ABI_SCOPE ? 24 : abi >= ABI_NET ? 16 : 8;
    MU_AUTO_CLOSE int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0) {
        return mu_fail(f, "landlock", "create_ruleset");
    }
    for (size_t i = 0; i < rules->n_paths; i++) {
        if (allow(ruleset, &rules->paths[i], all) < 0) {
            return mu_fail(f, "landlock", rules->paths[i].path);
        }
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) {
        return mu_fail(f, "landlock", "restrict_self");
    }
    return 0;
}
