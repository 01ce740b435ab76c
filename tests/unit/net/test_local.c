/* Unix sockets of the runner's link. */
#include "../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/local.h"

static struct mu_loop *loop;
static struct mu_listener *listener;
static struct mu_local *conn;
static struct mu_buf got;
static bool ended, drained;
static char dir[256];
static struct mu_timer timer;

static void on_data(void *arg, mu_bytes bytes)
{
    (void)arg;
    mu_buf_add(&got, bytes);
}
static void on_drained(void *arg)
{
    (void)arg;
    drained = true;
}
static void on_ended(void *arg)
{
    (void)arg;
    ended = true;
}
static const struct mu_local_ops ops = {on_data, on_drained, on_ended};

static void accepted(void *arg, struct mu_local *c)
{
    (void)arg;
    conn = c;
    mu_local_start(c, &ops, NULL);
}

static void on_time(struct mu_timer *t)
{
    mu_loop_stop(t->loop);
}

static void run_for(int64_t ms)
{
    mu_timer_init(&timer, loop, on_time);
    assert_int_equal(mu_timer_set(&timer, ms), 0);
    mu_loop_run(loop);
}

static int dial(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int folder = open(dir, O_RDONLY | O_DIRECTORY), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/it.sock", folder);
    int r = connect(fd, (struct sockaddr *)&a, sizeof a);
    close(folder);
    if (r < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    char root[] = "/tmp/mu-local-XXXXXX";
    assert_non_null(mkdtemp(root));
    /* longer than a socket's address may be */
    snprintf(dir, sizeof dir, "%s/%0110d", root, 7);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &loop), 0);
    assert_int_equal(mu_local_listen(loop, dir, "it.sock", accepted, NULL, &listener), 0);
    mu_buf_init(&got, 64 << 20);
    ended = drained = false;
    conn = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    conn = mu_local_close(conn);
    listener = mu_listener_close(listener);
    assert_int_equal(dial(), -1);
    loop = mu_loop_free(loop);
    mu_buf_fini(&got);
    assert_int_equal(rmdir(dir), 0);
    *strrchr(dir, '/') = 0;
    return rmdir(dir);
}

static void bytes_go_both_ways(void **state)
{
    (void)state;
    int fd = dial();
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "ping", 4), 4);
    run_for(20);
    assert_non_null(conn);
    assert_int_equal(got.len, 4);
    assert_int_equal(mu_local_send(conn, MU_B("pong")), 0);
    run_for(20);
    char back[8] = "";
    assert_int_equal(read(fd, back, sizeof back), 4);
    assert_string_equal(back, "pong");
    assert_int_equal(mu_local_unsent(conn), 0);
    close(fd);
    run_for(20);
    assert_true(ended);
}

static void what_the_peer_does_not_take_waits_and_is_bounded(void **state)
{
    (void)state;
    int fd = dial();
    run_for(20);
    char *block = calloc(1, 1 << 20);
    int r = 0;
    size_t sent = 0;
    for (int i = 0; i < 64 && r == 0; i++, sent++) {
        r = mu_local_send(conn, mu_bytes_of(block, 1 << 20));
    }
    assert_int_equal(r, MU_E_TOO_LARGE);
    assert_true(mu_local_unsent(conn) <= (32 << 20));
    size_t want = (sent - 1) << 20, have = 0;
    while (have < want) {
        run_for(1);
        ssize_t n = recv(fd, block, 1 << 20, MSG_DONTWAIT);
        have += n > 0 ? (size_t)n : 0;
    }
    run_for(5);
    assert_true(drained);
    assert_int_equal(mu_local_send(conn, MU_B("again")), 0);
    free(block);
    close(fd);
}

static void a_held_connection_is_not_read(void **state)
{
    (void)state;
    int fd = dial();
    run_for(20);
    mu_local_hold(conn, true);
    assert_int_equal(write(fd, "later", 5), 5);
    run_for(20);
    assert_int_equal(got.len, 0);
    mu_local_hold(conn, false);
    run_for(20);
    assert_int_equal(got.len, 5);
    close(fd);
}

static void a_peer_that_goes_while_it_is_written_to_ends_it_once(void **state)
{
    (void)state;
    int fd = dial();
    run_for(20);
    char *block = calloc(1, 1 << 20);
    assert_int_equal(mu_local_send(conn, mu_bytes_of(block, 1 << 20)), 0);
    close(fd);
    run_for(50);
    assert_true(ended);
    assert_int_equal(mu_local_send(conn, MU_B("nobody")), 0);
    free(block);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(bytes_go_both_ways),
        T(what_the_peer_does_not_take_waits_and_is_bounded),
        T(a_held_connection_is_not_read),
        T(a_peer_that_goes_while_it_is_written_to_ends_it_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
