#include "../unit.h"

#include <errno.h>
#include <pthread.h>

#include "../alloc_fail.h"
#include "base/metrics.h"

static void the_exposition_is_prometheus_text(void **state MU_UNUSED)
{
    struct mu_metrics *m = NULL;
    assert_int_equal(mu_metrics_new(&m), 0);
    struct mu_metric *a = mu_metrics_counter(m, "muster_x_total", "class=\"a\"", "Things.");
    struct mu_metric *b = mu_metrics_counter(m, "muster_x_total", "class=\"b\"", "Things.");
    struct mu_metric *g = mu_metrics_gauge(m, "muster_open", NULL, "Open.");
    mu_metric_add(a, 2);
    mu_metric_add(a, 1);
    mu_metric_add(b, 7);
    mu_metric_set(g, -4);
    assert_int_equal(mu_metric_value(a), 3);
    struct mu_buf buf;
    mu_buf_init(&buf, 1 << 16);
    mu_metrics_write(m, &buf);
    mu_buf_add_char(&buf, 0);
    assert_string_equal(buf.ptr, "# HELP muster_x_total Things.\n# TYPE muster_x_total counter\n"
                                 "muster_x_total{class=\"a\"} 3\nmuster_x_total{class=\"b\"} 7\n"
                                 "# HELP muster_open Open.\n# TYPE muster_open gauge\n"
                                 "muster_open -4\n");
    mu_buf_fini(&buf);
    assert_null(mu_metrics_free(m));
}

static void histograms_count_cumulatively_up_to_their_bounds(void **state MU_UNUSED)
{
    struct mu_metrics *m = NULL;
    assert_int_equal(mu_metrics_new(&m), 0);
    struct mu_metric *h = mu_metrics_histogram(m, "muster_t_seconds", "q=\"1\"", "Time.");
    static const int64_t us[] = {-5, 0, 100, 101, 1000000, 59999999, 60000000, 60000001};
    for (size_t i = 0; i < MU_ARRAY_LEN(us); i++) {
        mu_metric_observe_us(h, us[i]);
    }
    struct mu_buf buf;
    mu_buf_init(&buf, 1 << 16);
    mu_metrics_write(m, &buf);
    mu_buf_add_char(&buf, 0);
    static const char *const lines[] = {
        "# TYPE muster_t_seconds histogram\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"0.0001\"} 3\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"0.00025\"} 4\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"0.5\"} 4\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"1\"} 5\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"60\"} 7\n",
        "muster_t_seconds_bucket{q=\"1\",le=\"+Inf\"} 8\n",
        "muster_t_seconds_sum{q=\"1\"} 181.000201\n",
        "muster_t_seconds_count{q=\"1\"} 8\n",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(lines); i++) {
        if (!strstr(buf.ptr, lines[i])) {
            fail_msg("%s is not in\n%s", lines[i], buf.ptr);
        }
    }
    mu_buf_fini(&buf);
    mu_metrics_free(m);
}

static void missing_metrics_are_accepted_everywhere(void **state MU_UNUSED)
{
    struct mu_buf buf;
    mu_buf_init(&buf, 100);
    assert_null(mu_metrics_counter(NULL, "a", NULL, "b"));
    mu_metric_add(NULL, 1);
    mu_metric_set(NULL, 1);
    mu_metric_observe_us(NULL, 1);
    assert_int_equal(mu_metric_value(NULL), 0);
    mu_metrics_write(NULL, &buf);
    assert_int_equal(buf.len, 0);
    assert_null(mu_metrics_free(NULL));
    mu_buf_fini(&buf);
}

static void *count(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        mu_metric_add(arg, 1);
    }
    return NULL;
}

static void threads_lose_no_count(void **state MU_UNUSED)
{
    struct mu_metrics *m = NULL;
    pthread_t t[4];
    assert_int_equal(mu_metrics_new(&m), 0);
    struct mu_metric *c = mu_metrics_counter(m, "n_total", NULL, "N.");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, count, c), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
    assert_int_equal(mu_metric_value(c), 80000);
    mu_metrics_free(m);
}

static int make(void *arg MU_UNUSED)
{
    struct mu_metrics *m = NULL;
    struct mu_buf buf;
    mu_buf_init(&buf, 1 << 16);
    int r = mu_metrics_new(&m);
    assert_true(r == 0 || r == -ENOMEM);
    mu_metric_add(mu_metrics_counter(m, "a_total", NULL, "A."), 1);
    mu_metric_observe_us(mu_metrics_histogram(m, "b_seconds", NULL, "B."), 1);
    mu_metrics_write(m, &buf);
    mu_metrics_free(m);
    mu_buf_fini(&buf);
    return r;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(make, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exposition_is_prometheus_text),
        cmocka_unit_test(histograms_count_cumulatively_up_to_their_bounds),
        cmocka_unit_test(missing_metrics_are_accepted_everywhere),
        cmocka_unit_test(threads_lose_no_count),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
