/* Id-mapped sources: folders of the worker (bases, mirrors) that a range of ids shall own inside.
 */
#include <errno.h>
#include <fcntl.h>

#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/tree_int.h"
#include "exec/sandbox/userns_int.h"

static int map_one(struct mu_step *s, int userns, struct mu_err *err)
{
    struct mu_mount_attr attr = {.set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
    s->fd = mu_open_tree(AT_FDCWD, s->text, OPEN_TREE_CLONE);
    if (s->fd < 0) {
        return mu_err_set(err, -errno, "id map: open %.200s", s->text);
    }
    if (mu_mount_setattr(s->fd, "", AT_EMPTY_PATH, &attr) < 0) {
        return mu_err_set(err, -errno, "id map: %.200s (its file system cannot be id-mapped)",
                          s->text);
    }
    return 0;
}

int mu_tree_idmap(struct mu_tree *tree, const struct mu_box *box, struct mu_err *err)
{
    /* What the worker owns is the agent's; of an unpacked base every id has its own. */
    int own = -1, whole = -1, r = 0;
    for (size_t i = 0; r == 0 && i < tree->n; i++) {
        struct mu_step *s = &tree->steps[i];
        if (!s->idmap) {
            continue;
        }
        bool is_root = !*s->path;
        int *userns = is_root ? &whole : &own;
        if (*userns < 0) {
            *userns = is_root ? mu_userns_fd(0, box->range, MU_BOX_RANGE)
                              : mu_userns_fd((int64_t)geteuid(), box->range + mu_box_uid(box), 1);
        }
        r = *userns < 0 ? mu_err_set(err, *userns, "id map: namespace") : map_one(s, *userns, err);
    }
    if (own >= 0) {
        close(own);
    }
    if (whole >= 0) {
        close(whole);
    }
    return r;
}
