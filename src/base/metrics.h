/* Counters, gauges and histograms, exposed in the Prometheus text format (version 0.0.4). Updating
 * is a relaxed atomic add; any thread. Metrics are registered before the threads start and live as
 * long as the registry. */
#ifndef MU_BASE_METRICS_H
#define MU_BASE_METRICS_H

#include "base/buf.h"

struct mu_metrics;
struct mu_metric;

MU_MUST_USE int mu_metrics_new(struct mu_metrics **ret);
struct mu_metrics *mu_metrics_free(struct mu_metrics *m);

/* `name` and `help` are literals. `labels` is NULL or literal label text without braces
 * ("class=\"auth\""): metrics of one name are registered one after the other. NULL when out of
 * memory; every function below accepts NULL. */
struct mu_metric *mu_metrics_counter(struct mu_metrics *m, const char *name, const char *labels,
                                     const char *help);
struct mu_metric *mu_metrics_gauge(struct mu_metrics *m, const char *name, const char *labels,
                                   const char *help);
/* Buckets in microseconds from 100 us to 60 s, shown in seconds; name ends in _seconds. */
struct mu_metric *mu_metrics_histogram(struct mu_metrics *m, const char *name, const char *labels,
                                       const char *help);

void mu_metric_add(struct mu_metric *c, int64_t n);
void mu_metric_set(struct mu_metric *g, int64_t v);
void mu_metric_observe_us(struct mu_metric *h, int64_t us);
int64_t mu_metric_value(const struct mu_metric *c);

/* Appends the exposition of everything. */
void mu_metrics_write(struct mu_metrics *m, struct mu_buf *dst);

#endif
