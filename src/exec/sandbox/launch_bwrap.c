/* Rung B: /usr/bin/bwrap makes the namespaces where the system lets only it do so. */
#include <errno.h>

#include "exec/sandbox/launch_int.h"

int mu_launch_bwrap(struct mu_launch *l)
{
    errno = ENOSYS;
    mu_fail(&l->failure, "bubblewrap", "not built yet");
    return -ENOSYS;
}
