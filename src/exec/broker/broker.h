/* The only way out of a sandbox (sandbox.md 9): serves the outer ends of the connections that PID 1
 * accepted on its loopback ports. Proxy connections speak HTTP (CONNECT, absolute form for port 80)
 * and are held to an allow-list; forward ports go to the one address that the operator named. Names
 * are resolved here, once, and the address that was checked is the one connected to. Loop thread.
 */
#ifndef MU_EXEC_BROKER_BROKER_H
#define MU_EXEC_BROKER_BROKER_H

#include "base/bytes.h"
#include "io/loop.h"

struct mu_broker;
struct mu_broker_session;

enum { MU_BROKER_PROXY_PORT = 3128, MU_BROKER_FORWARDS = 16 };

/* The operator's part: what every session may reach besides its environment's list. */
struct mu_broker_settings {
    const struct mu_env *env;
    const char *allow;          /* "host:port,*.host:port", or NULL */
    const char *allow_addr;     /* "10.0.0.5:8080,[fd00::1]:443": private addresses that names may
                                   resolve     to, or NULL */
    const char *forward;        /* "8081=host:port,…": loopback port inside -> outside, or NULL */
    const char *upstream;       /* HTTP proxy of the machine ("host:port") to go through, or NULL */
    unsigned max_connections;   /* of one session: 64 */
    int64_t max_bytes_per_hour; /* of one session, both directions: 1 GiB */
    /* Seam for tests: numeric addresses of a name, separated by blanks (caller's to mu_free()),
     * NULL = not found. Called on a pool thread. NULL = getaddrinfo. */
    char *(*resolve)(void *arg, const char *host);
    void *resolve_arg;
};
/* Worded: which entry of which list is wrong. */
MU_MUST_USE int mu_broker_new(struct mu_loop *loop, const struct mu_broker_settings *settings,
                              struct mu_broker **ret, struct mu_err *err);
struct mu_broker *mu_broker_free(struct mu_broker *b);
/* The loopback ports that PID 1 must listen on: the proxy's and the forwards'. */
size_t mu_broker_ports(const struct mu_broker *b, uint16_t *ret, size_t max);

/* One finished (or refused) connection. */
struct mu_broker_event {
    const char *host;
    unsigned port;
    const char *verdict; /* "allowed", or the refusal's word, as in X-Muster-Reason */
    int64_t bytes_in, bytes_out, duration_ms;
};
struct mu_broker_session_opts {
    const char *allow; /* the environment's network.allow, as above, or NULL */
    void (*event)(void *arg, const struct mu_broker_event *e); /* may be NULL */
    void *arg;
};
MU_MUST_USE int mu_broker_session_new(struct mu_broker *b,
                                      const struct mu_broker_session_opts *opts,
                                      struct mu_broker_session **ret, struct mu_err *err);
/* Cuts its connections. Returns NULL. */
struct mu_broker_session *mu_broker_session_free(struct mu_broker_session *s);
/* A connection was accepted inside on `port`: fills *ret_fd with the end to hand in (a connected
 * stream socket, the caller's to close after sending). Errors (-EMFILE …, MU_E_LIMIT, MU_E_INVALID
 * for a port that is nobody's) mean: refuse. */
MU_MUST_USE int mu_broker_dial(struct mu_broker_session *s, uint16_t port, int *ret_fd);

/* The grammar, for tests and for settings: a host as rule 2 accepts it. */
bool mu_broker_host_ok(mu_bytes host);

#endif
