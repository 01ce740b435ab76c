/* What a session's folder holds for a keeper and from one: the files `spec` and `end`. What is read
 * and written again reads the same. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "exec/sandbox/ctl_int.h"
#include "fuzz.h"

static char dir[] = "/tmp/fuzz-end-XXXXXX";
static int dir_fd = -1;

static void leave(void)
{
    unlinkat(dir_fd, "end", 0);
    rmdir(dir);
}

static void spec(mu_bytes in)
{
    struct mu_arena arena;
    struct mu_box box, again;
    struct mu_err err;
    struct mu_buf first, second;
    mu_arena_init(&arena, 3 * MU_BOX_SPEC_MAX);
    mu_buf_init(&first, MU_BOX_SPEC_MAX);
    mu_buf_init(&second, MU_BOX_SPEC_MAX);
    if (mu_box_read(in, &arena, &box, &err) == 0) {
        MU_CHECK(mu_box_id_valid(box.id) && box.bundle && box.base && box.argv[0]);
        MU_CHECK(!box.argv[box.n_argv] && !box.env[box.n_env] && !box.etc[box.n_etc]);
        MU_CHECK(box.range >= 0 && box.range <= UINT32_MAX - MU_BOX_RANGE);
        for (size_t i = 0; i < box.n_ports; i++) {
            MU_CHECK(box.ports[i] > 0 && box.ports[i] <= 65535);
        }
        mu_box_write(&box, &first);
        MU_CHECK(mu_box_read(mu_buf_bytes(&first), &arena, &again, &err) == 0);
        mu_box_write(&again, &second);
        MU_CHECK(mu_bytes_eq(mu_buf_bytes(&first), mu_buf_bytes(&second)));
    }
    mu_buf_fini(&first);
    mu_buf_fini(&second);
    mu_arena_fini(&arena);
}

static void end(mu_bytes in)
{
    struct mu_end one, two;
    if (dir_fd < 0) {
        MU_CHECK(mkdtemp(dir));
        dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        atexit(leave);
    }
    MU_CHECK(dir_fd >= 0 && mu_session_put(dir_fd, "end", in) == 0);
    if (mu_end_read(dir_fd, &one) == 0) {
        MU_CHECK(memchr(one.reason, 0, sizeof one.reason) && memchr(one.step, 0, sizeof one.step) &&
                 memchr(one.message, 0, sizeof one.message));
        MU_CHECK(mu_end_write(dir_fd, &one) == 0 && mu_end_read(dir_fd, &two) == 0);
        MU_CHECK(one.exit_code == two.exit_code && one.step_errno == two.step_errno &&
                 strcmp(one.reason, two.reason) == 0 && strcmp(one.message, two.message) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    if (fuzz_byte(&in) == 'e') {
        end(in);
    } else {
        spec(in);
    }
    return 0;
}
