/* fetch.c has the multi handle, its sockets and the queue; fetch_one.c a single transfer. */
#ifndef MU_NET_FETCH_INT_H
#define MU_NET_FETCH_INT_H

#include <curl/curl.h>

#include "base/list.h"
#include "net/fetch.h"

struct mu_fetcher {
    struct mu_loop *loop;
    CURLM *multi;
    struct mu_timer timer; /* what libcurl asked for */
    struct mu_post kick;   /* starts and aborts, both outside of libcurl's callbacks */
    bool kicked;           /* `kick` is in the loop's queue */
    bool closing;
    int depth; /* > 0: inside libcurl or a callback of a user */
    struct mu_list queued, active, aborting;
    struct mu_list socks;
    long n_active, max_active; /* max_active 0 = no limit */
};

struct mu_fetch {
    struct mu_list link; /* in one of the lists of the fetcher */
    struct mu_fetcher *fetcher;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    struct mu_timer timer;
    bool added; /* to the multi handle, counted in n_active */
    bool aborting;
    bool connected;
    bool decided; /* result.end and .text are known, whatever libcurl will say */

    int64_t connect_ms, first_byte_ms, idle_ms, total_ms;
    int64_t start_ms, active_ms, last_byte_ms;
    size_t header_bytes, bytes, max_bytes;
    struct mu_fetch_result result;

    int (*body_fn)(void *arg, int status, mu_bytes piece);
    void (*done)(void *arg, const struct mu_fetch_result *result);
    void *arg;
};

/* fetch.c: ends it now: outside of libcurl only. Calls done() and frees. */
void mu_fetch_finish_(struct mu_fetch *f);

/* fetch_one.c */
MU_MUST_USE int mu_fetch_new_(struct mu_fetcher *fetcher, const struct mu_fetch_request *req,
                              struct mu_fetch **ret);
void mu_fetch_free_(struct mu_fetch *f);
/* Decides how it ends; the first decision stays. */
void mu_fetch_decide_(struct mu_fetch *f, enum mu_fetch_end end, const char *text);
/* Decides by what libcurl said. */
void mu_fetch_decide_code_(struct mu_fetch *f, CURLcode code);
/* Sets the timer for the next of its deadlines. -ENOMEM. */
MU_MUST_USE int mu_fetch_arm_(struct mu_fetch *f);

#endif
