#include "base/metrics.h"

#include <errno.h>
#include <stdatomic.h>

enum kind { COUNTER, GAUGE, HISTOGRAM };

/* Upper bounds in microseconds and the same in seconds as text. */
static const struct {
    int64_t us;
    const char *seconds;
} bounds[] = {
    {100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"},  {2500, "0.0025"},
    {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"},  {100000, "0.1"},
    {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},   {2500000, "2.5"}, {5000000, "5"},
    {10000000, "10"}, {30000000, "30"}, {60000000, "60"},
};
enum { N_BOUNDS = MU_ARRAY_LEN(bounds) };

struct mu_metric {
    struct mu_metric *next;
    enum kind kind;
    const char *name, *labels, *help;
    atomic_int_least64_t value;     /* of a histogram: the sum in microseconds */
    atomic_int_least64_t buckets[]; /* of a histogram: N_BOUNDS + 1, not cumulative */
};

struct mu_metrics {
    struct mu_metric *first, **end;
};

int mu_metrics_new(struct mu_metrics **ret)
{
    struct mu_metrics *m = mu_calloc(1, sizeof *m);
    if (!m) {
        return -ENOMEM;
    }
    m->end = &m->first;
    *ret = m;
    return 0;
}

struct mu_metrics *mu_metrics_free(struct mu_metrics *m)
{
    if (m) {
        struct mu_metric *c = m->first;
        while (c) {
            struct mu_metric *next = c->next;
            mu_free(c);
            c = next;
        }
        mu_free(m);
    }
    return NULL;
}

static struct mu_metric *add(struct mu_metrics *m, enum kind kind, const char *name,
                             const char *labels, const char *help)
{
    if (!m) {
        return NULL;
    }
    size_t n = kind == HISTOGRAM ? N_BOUNDS + 1 : 0;
    struct mu_metric *c = mu_calloc(1, sizeof *c + n * sizeof c->buckets[0]);
    if (c) {
        c->kind = kind;
        c->name = name;
        c->labels = labels;
        c->help = help;
        *m->end = c;
        m->end = &c->next;
    }
    return c;
}

struct mu_metric *mu_metrics_counter(struct mu_metrics *m, const char *name, const char *labels,
                                     const char *help)
{
    return add(m, COUNTER, name, labels, help);
}

struct mu_metric *mu_metrics_gauge(struct mu_metrics *m, const char *name, const char *labels,
                                   const char *help)
{
    return add(m, GAUGE, name, labels, help);
}

struct mu_metric *mu_metrics_histogram(struct mu_metrics *m, const char *name, const char *labels,
                                       const char *help)
{
    return add(m, HISTOGRAM, name, labels, help);
}

void mu_metric_add(struct mu_metric *c, int64_t n)
{
    if (c) {
        atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
    }
}

void mu_metric_set(struct mu_metric *g, int64_t v)
{
    if (g) {
        atomic_store_explicit(&g->value, v, memory_order_relaxed);
    }
}

void mu_metric_observe_us(struct mu_metric *h, int64_t us)
{
    if (!h || h->kind != HISTOGRAM) {
        return;
    }
    us = MU_MAX(us, 0); /* a clock that was set back must not make the sum fall */
    size_t i = 0;
    while (i < N_BOUNDS && us > bounds[i].us) {
        i++;
    }
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->value, us, memory_order_relaxed);
}

int64_t mu_metric_value(const struct mu_metric *c)
{
    return c ? atomic_load_explicit(&c->value, memory_order_relaxed) : 0;
}

/* name[suffix]{labels,le="…"} and the blank before the value */
static void write_name(struct mu_buf *dst, const struct mu_metric *c, const char *suffix,
                       const char *le)
{
    mu_buf_add_str(dst, c->name);
    mu_buf_add_str(dst, suffix);
    bool labels = c->labels && c->labels[0];
    if (labels || le) {
        mu_buf_add_char(dst, '{');
        mu_buf_add_str(dst, labels ? c->labels : "");
        if (le) {
            mu_buf_printf(dst, "%sle=\"%s\"", labels ? "," : "", le);
        }
        mu_buf_add_char(dst, '}');
    }
    mu_buf_add_char(dst, ' ');
}

static void write_value(struct mu_buf *dst, int64_t v)
{
    mu_buf_add_i64(dst, v);
    mu_buf_add_char(dst, '\n');
}

static void write_histogram(struct mu_buf *dst, const struct mu_metric *h)
{
    int64_t total = 0;
    for (size_t i = 0; i <= N_BOUNDS; i++) {
        total += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        write_name(dst, h, "_bucket", i < N_BOUNDS ? bounds[i].seconds : "+Inf");
        write_value(dst, total);
    }
    int64_t us = mu_metric_value(h);
    write_name(dst, h, "_sum", NULL);
    mu_buf_printf(dst, "%lld.%06lld\n", (long long)(us / 1000000), (long long)(us % 1000000));
    write_name(dst, h, "_count", NULL); /* the same number as the last bucket, always */
    write_value(dst, total);
}

void mu_metrics_write(struct mu_metrics *m, struct mu_buf *dst)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const char *last = "";
    for (const struct mu_metric *c = m ? m->first : NULL; c; c = c->next) {
        if (strcmp(last, c->name) != 0) {
            mu_buf_printf(dst, "# HELP %s %s\n# TYPE %s %s\n", c->name, c->help, c->name,
                          types[c->kind]);
            last = c->name;
        }
        if (c->kind == HISTOGRAM) {
            write_histogram(dst, c);
        } else {
            write_name(dst, c, "", NULL);
            write_value(dst, mu_metric_value(c));
        }
    }
}
