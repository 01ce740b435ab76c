/* The static program: what runs inside a sandbox, and what keeps one (architecture.md 8.1). It has
 * to start in any image, so it is linked to nothing. */
#include <stdio.h>
#include <string.h>

#include "runner/runner.h"

#ifdef MU_WITH_KEEP
int mu_keep_main(int argc, char **argv);
#endif

int main(int argc, char **argv)
{
    if (argc > 0 && mu_runner_is_shim(argv[0])) {
        return mu_runner_shim(argc, argv);
    }
    if (mu_runner_is_askpass()) {
        return mu_runner_askpass(argc, argv);
    }
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "runner") == 0) {
        return mu_runner_main(argc - 1, argv + 1);
    }
    if (strcmp(command, "agent") == 0) { /* the argument list of a worker, without a container */
        return mu_runner_main(argc, argv);
    }
#ifdef MU_WITH_KEEP
    if (strcmp(command, "keep") == 0) {
        return mu_keep_main(argc - 1, argv + 1);
    }
#endif
    if (strcmp(command, "--version") == 0) {
        return printf("muster %s (agent)\n", MU_VERSION) < 0;
    }
    fputs("usage: muster runner [ARGS] | muster runner --self-test | muster --version\n", stderr);
    return 2;
}
